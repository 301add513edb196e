"""Reports of translations: corpus scores and attention maps.

`outputs` are `Hypotheses` of a search: `tokens` [examples, length], padded with the end token, and `kept`,
the attention weights [examples, length, source].
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.evaluate.figures import INK, SMALL, make_figure
from research.evaluate.reports import Highest, Report, Streamed, reading
from research.types import Rows

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Decode = Callable[[np.ndarray], str]  # tokens to text


def corpus_scores(decode: Decode) -> Report:
  """BLEU (Papineni et al. 2002) and chrF (Popovic 2015) from 0 to 100 of the decoded text, by sacrebleu.

  Signatures: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp and nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no.
  """

  @reading(lambda outputs, rows: (outputs.tokens, {'targets': rows['targets']}))
  def corpus_scores(written: np.ndarray, rows: Rows) -> Iterator[tuple[str, float]]:
    import sacrebleu  # takes half a second

    predictions = [decode(tokens) for tokens in written]
    references = [[decode(tokens) for tokens in rows['targets']]]
    yield 'bleu', sacrebleu.corpus_bleu(predictions, references).score
    yield 'chrf', sacrebleu.corpus_chrf(predictions, references).score

  return corpus_scores


def attention_of_one(decode: Decode, eos_id: int, tokens: int = 18) -> Report:
  """Report that draws the attention of the first example whose source has at least `tokens` tokens."""

  def report(outputs, rows: Rows) -> Iterator[tuple[str, 'Figure']]:
    source = rows['inputs'][0, : rows['lengths'][0]]
    yield 'attention', attention_of(decode, eos_id, source, outputs.tokens[0], outputs.kept[0])

  def score(outputs, rows: Rows) -> np.ndarray:
    return np.minimum(rows['lengths'], tokens)

  return Streamed('attention_of_one', lambda size: Highest(report, score, max_count=1))


def attention_of(decode: Decode, eos_id: int, source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> 'Figure':
  """Heat map of the attention from the tokens `target`, up to `eos_id`, to `source`."""
  names = [[_shown(decode(token[None])) for token in side] for side in (source, target[: length_of(target, eos_id)])]
  return attention_map(weights, *names)


def _shown(text: str) -> str:
  return text if text.isprintable() else ascii(text)[1:-1]


def length_of(tokens: np.ndarray, eos_id: int) -> int:
  """Number of tokens before the first `eos_id`."""
  return int(np.append(tokens == eos_id, True).argmax())


def attention_map(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> 'Figure':
  """Heat map of weights [>= target, >= source]: a row per output token, a column per input token."""
  size = 1 + 0.24 * len(source), 1 + 0.24 * len(target)
  figure, (axis,) = make_figure(size=size)
  axis.imshow(weights[: len(target), : len(source)].astype(np.float32), cmap='Blues', vmin=0, vmax=1)
  axis.set_xticks(range(len(source)), source, rotation=90, fontsize=SMALL, color=INK, parse_math=False)
  axis.set_yticks(range(len(target)), target, fontsize=SMALL, color=INK, parse_math=False)
  axis.xaxis.tick_top()
  axis.xaxis.set_label_position('top')
  axis.set_xlabel('tokens of the source', fontsize=SMALL)
  axis.set_ylabel('tokens of the translation', fontsize=SMALL)
  axis.tick_params(length=0)
  return figure
