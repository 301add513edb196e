"""An LSTM language model of Shakespeare, tested on three unseen plays: see README.md."""

import dataclasses
from collections.abc import Iterator

from jax import Array

from experiments.wiring import check_network, supervised_experiment
from research.data import text, windows
from research.data.examples import Dataset
from research.data.shakespeare import shakespeare
from research.errors import ConfigError
from research.evaluate import language, sampling
from research.models.language import LanguageModel, Stream
from research.models.rnn import RNN
from research.objectives.classification import cross_entropies
from research.objectives.language import next_token
from research.report.agreement import Target
from research.tasks.base import State
from research.tasks.network import Network, predictor
from research.train.config import Config as Base
from research.train.config import as_field, check_at_least, check_known, check_within
from research.train.experiment import Experiment, Request, Sampler
from research.train.optimizer import Optimizer
from research.train.scales import at_scale, scales
from research.types import Batch, Fitted, PyTree

TARGETS = (Target('test/bits_per_character', at_most=2.15, margin=0.03),)
MOST = 2**16  # tokens in an evaluation window: a whole play


@dataclasses.dataclass
class Config(Base):
  """One recurrent layer whose state carries over from window to window; each row of a batch is a stream of text."""

  tokenizer: str = 'byte_pairs'  # bytes, characters or byte_pairs
  vocab_size: int = 512  # of byte_pairs, at most
  sequence_length: int = 64  # tokens per window; gradients are truncated there
  eval_context: int = 64  # tokens of context before the targets of an evaluation window
  eval_length: int = 448  # target tokens per evaluation window
  cell: str = 'lstm'  # elman, gru, lstm or layer_norm_lstm
  num_layers: int = 1  # of the recurrent network
  hidden_size: int = 512  # of each layer
  embed_dim: int = 128  # of the token embeddings
  dropout_rate: float = 0.0  # before and after the recurrent network
  tie_embeddings: bool = False  # share the embedding with the output layer

  def validate(self) -> None:
    super().validate()
    check_at_least(self, 1, 'sequence_length')
    check_within(self, 'eval_context', 0, MOST)
    check_within(self, 'eval_length', 1, MOST)
    check_known(self, 'tokenizer', text.KINDS)
    if self.tokenizer == 'byte_pairs':
      check_at_least(self, text.BYTES, 'vocab_size')
    check_network(self, {'tokenizer': text.Bytes().to_json()})

  def build(self, fitted: Fitted | None = None) -> Experiment:
    corpus = shakespeare()
    texts = list(corpus.train.values())
    fitted = fitted or {'tokenizer': text.make_tokenizer(self.tokenizer, texts, self.vocab_size).to_json()}
    tokenizer = text.from_json(fitted['tokenizer'])
    train, *held_out = ([tokenizer.encode(play) for play in part.values()] for part in corpus)
    with as_field():
      examples = windows.stream_examples(train, self.batch_size, self.sequence_length)
    data = Dataset(
      examples, *(windows.context_examples(part, self.eval_context, self.eval_length) for part in held_out)
    )
    characters = tokenizer.characters()
    return supervised_experiment(
      self,
      data,
      fitted,
      next_token(characters),
      score=lambda metrics: -metrics['validation/bits_per_character'],
      metrics=(language.perplexity,),
      figures=(language.bits_by_document(list(corpus.test), characters), language.bits_by_context(self.eval_context)),
      predict=losses(self.network(fitted).computing_in(self.precision)),
      source=windows.Streams(examples, self.batch_size),
    )

  def network(self, fitted: Fitted) -> Network:
    rnn = RNN(self.hidden_size, self.num_layers, self.cell, dropout_rate=self.dropout_rate)
    vocab_size = text.from_json(fitted['tokenizer']).size
    return Network(LanguageModel(vocab_size, rnn, self.embed_dim, self.dropout_rate, self.tie_embeddings), preprocess)

  def sampler(self, fitted: Fitted) -> Sampler:
    tokenizer, model = text.from_json(fitted['tokenizer']), self.network(fitted).model

    def advance(variables: PyTree, tokens: Array, carry: PyTree) -> tuple[Array, PyTree]:
      return model.apply(variables, tokens, carry, method='advance')

    def sample(variables: PyTree, key: Array, request: Request) -> Iterator[tuple[str, str]]:
      prompt, carry = encoded(tokenizer, request), model.rnn.initial_carry(1)
      length = 500 if request.length is None else request.length
      temperature = 1.0 if request.temperature is None else request.temperature
      drawn = sampling.continued(advance, variables, carry, prompt, length, temperature, key)
      yield 'text', request.prompt + tokenizer.decode(drawn)

    return sample


def preprocess(batch: Batch) -> Batch:
  """Training windows continue those of the batch before; evaluation windows are independent."""
  inputs = Stream(batch['inputs'], batch['reset']) if 'reset' in batch else batch['inputs']
  return {**batch, 'inputs': inputs}


def losses(network: Network):
  """Function (state, batch) -> the loss of each target [batch, length]; all logits would not fit in memory."""
  logits = predictor(network)

  def predict(state: State, batch: Batch) -> Array:
    return cross_entropies(logits(state, batch), batch['targets'])

  return predict


def encoded(tokenizer: text.Tokenizer, request: Request):
  """The prompt's tokens. Raises ConfigError for an empty prompt or unknown characters."""
  if request.input or not request.prompt:
    raise ConfigError("--prompt: continues a text and takes no --input; give one, such as --prompt='ROMEO.'")
  try:
    return tokenizer.encode(request.prompt)
  except ConfigError as error:
    raise ConfigError(f'--prompt: {error}') from error


def get_config(scale: str = '') -> Config:
  """The recorded experiment; 'fast' is a first look at it, 'tiny' the same with small numbers, for tests."""
  small = {
    'sequence_length': 16,
    'eval_context': 16,
    'eval_length': 112,
    'hidden_size': 16,
    'embed_dim': 8,
    'tokenizer': 'characters',
  }
  recorded = Config(
    steps=2_600,
    batch_size=32,
    optimizer=Optimizer('adam', lr=8e-3, schedule='cosine', warmup_steps=100, final_lr_fraction=0.02, clip_norm=1.0),
    eval_every=650,
    eval_batch_size=64,
    checkpoint_every=1_300,
  )
  return at_scale(scale, scales(recorded, steps=20, batch_size=8, **small))
