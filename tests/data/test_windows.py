"""Windows of texts: streams that go on from step to step, and evaluations that count every target once."""

import numpy as np
import pytest

from research.data.windows import Streams, context_examples, stream_examples
from research.errors import ConfigError

DOCUMENTS = [np.arange(0, 100), np.arange(100, 130), np.arange(130, 201)]  # each token tells its place


def test_a_row_goes_on_where_it_ended_and_begins_anew_after_its_stretch():
  source = Streams(stream_examples(DOCUMENTS, 4, 7), 4)
  batches = [source.examples.rows(source.indices(step)) for step in range(21)]
  for epoch in range(3):
    rows = np.concatenate([batch['inputs'] for batch in batches[7 * epoch : 7 * epoch + 7]], axis=1)
    np.testing.assert_array_equal(rows, np.arange(196).reshape(4, 49))
  for step, batch in enumerate(batches):
    np.testing.assert_array_equal(batch['targets'], batch['inputs'] + 1)
    np.testing.assert_array_equal(batch['reset'], np.full(4, step % 7 == 0))


def test_any_step_alone_is_the_same_as_in_turn():
  source = Streams(stream_examples(DOCUMENTS, 5, 4), 5)
  in_turn = [source.indices(step) for step in range(30)]
  for step in (29, 0, 17, 3):
    assert source.indices(step).dtype == np.int32 and source.not_finite(step) == ''
    np.testing.assert_array_equal(Streams(source.examples, 5).indices(step), in_turn[step])


def test_windows_that_fill_no_whole_stretch_are_left_out():
  source = Streams(stream_examples(DOCUMENTS, 5, 4), 4)  # 50 windows are four stretches of 12
  assert len(source.examples) == 50
  np.testing.assert_array_equal(source.indices(13), [1, 13, 25, 37])


def test_a_text_too_short_for_a_batch_is_told():
  assert len(stream_examples(DOCUMENTS, 10, 20)) == 10
  with pytest.raises(ConfigError, match=r'batch_size x length: 11 x 20 need 221 tokens, but there are 201'):
    stream_examples(DOCUMENTS, 11, 20)


@pytest.mark.parametrize(
  ('make', 'name'),
  [
    (lambda: stream_examples(DOCUMENTS, 0, 7), 'batch_size=0'),
    (lambda: stream_examples(DOCUMENTS, 4, 0), 'length=0'),
    (lambda: context_examples(DOCUMENTS, -1, 5), 'context=-1'),
    (lambda: context_examples(DOCUMENTS, 0, 0), 'length=0'),
  ],
)
def test_what_cannot_be_meant_is_refused(make, name):
  with pytest.raises(ConfigError, match=name):
    make()


@pytest.mark.parametrize(('context', 'length'), [(0, 5), (3, 5), (8, 8), (16, 4), (5, 300), (300, 7)])
def test_every_target_counts_once_after_its_context(context, length):
  examples = context_examples(DOCUMENTS, context, length)
  counted = []
  for row in range(len(examples)):
    inputs, targets, weights = (examples.arrays[name][row] for name in ('inputs', 'targets', 'weights'))
    document = DOCUMENTS[examples.arrays['document'][row]]
    (places,) = np.nonzero(weights)
    np.testing.assert_array_equal(weights[places], 1)
    np.testing.assert_array_equal(inputs[: places[-1] + 1], inputs[0] + np.arange(places[-1] + 1))
    np.testing.assert_array_equal(targets[places], inputs[places] + 1)
    assert places[0] == 0 if inputs[0] == document[0] else places[0] == context
    counted.append(targets[places])
  np.testing.assert_array_equal(np.concatenate(counted), np.concatenate([tokens[1:] for tokens in DOCUMENTS]))
  assert examples.arrays['weights'].shape == (len(examples), context + length)
