"""What every model format keeps to. To test another one, inherit `ModelContract` and say how its model is made."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from protos.errors import Internal
from protos.tensors import DATATYPES
from runtime.model import Model, shares_runs


# Whoever loads a PyTorch model says so for the process; pytest forgets it from test to test.
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
class ModelContract:
    """Checks a model with floating-point inputs and outputs whose first dimension counts rows."""

    holds = 0  # bytes of its weights

    def make(self, folder) -> Model:
        """The model under test; `folder` is empty and its own."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory):
        """One model for all tests that leave it open: to export and to load one takes longer than to ask it."""
        model = cls().make(tmp_path_factory.mktemp("shared"))
        yield model
        model.close()

    @pytest.fixture
    def model(self, shared):
        return shared

    @pytest.fixture
    def own(self, tmp_path):
        """A model for a test that closes it."""
        model = self.make(tmp_path)
        yield model
        model.close()

    @pytest.fixture
    def inputs(self, model):
        rng = np.random.default_rng(0)

        def rows(count):
            return {
                spec.name: rng.random((count, *spec.shape[1:])).astype(DATATYPES[spec.datatype])
                for spec in model.inputs
            }

        return rows

    def test_it_says_what_it_is(self, model):
        assert model.name
        assert model.platform
        assert model.inputs
        assert model.outputs
        assert shares_runs(model, 2)

    def test_it_says_how_much_memory_its_weights_take(self, model):
        assert model.memory == self.holds

    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_it_returns_what_it_declares_for_any_number_of_rows(self, model, inputs, count):
        outputs = model.run(inputs(count))
        assert list(outputs) == [spec.name for spec in model.outputs]
        for spec in model.outputs:
            array = outputs[spec.name]
            assert array.dtype == DATATYPES[spec.datatype]
            assert array.shape == (count, *spec.shape[1:])

    def test_a_row_gets_the_same_answer_in_any_company(self, model, inputs):
        together = inputs(3)
        outputs = model.run(together)
        for row in range(3):
            alone = model.run({name: array[row : row + 1] for name, array in together.items()})
            for name, array in alone.items():
                np.testing.assert_allclose(array, outputs[name][row : row + 1], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("writeable", [True, False])
    def test_it_leaves_its_inputs_alone(self, model, inputs, writeable):
        """Also those that it could write to: the members of an ensemble share them."""
        given = inputs(2)
        before = {name: array.tobytes() for name, array in given.items()}
        for array in given.values():
            array.setflags(write=writeable)
        model.run(given)
        assert {name: array.tobytes() for name, array in given.items()} == before

    def test_inputs_may_come_in_any_order(self, model, inputs):
        given = inputs(2)
        turned = dict(reversed(given.items()))
        for name, array in model.run(turned).items():
            np.testing.assert_array_equal(array, model.run(given)[name])

    def test_bytes_may_lie_anywhere(self, model, inputs):
        """Those of a typed request begin after a tag and a length."""
        given = inputs(2)
        shifted = {name: _shifted(array) for name, array in given.items()}
        for name, array in model.run(shifted).items():
            np.testing.assert_array_equal(array, model.run(given)[name])

    def test_parameters_change_nothing_where_none_are_read(self, model, inputs):
        given = inputs(2)
        if model.reads_parameters:
            return
        for name, array in model.run(given, {"temperature": 0.5, "explain": True}).items():
            np.testing.assert_array_equal(array, model.run(given)[name])

    def test_what_is_not_a_number_stays_so(self, model, inputs):
        given = inputs(1)
        for array in given.values():
            array[...] = np.nan
        assert all(np.isnan(array).all() for array in model.run(given).values())

    def test_another_thread_may_run_it(self, model, inputs):
        given = inputs(2)
        answers = [model.run(given)]
        thread = threading.Thread(target=lambda: answers.append(model.run(given)))
        thread.start()
        thread.join()
        for name, array in answers[0].items():
            np.testing.assert_array_equal(array, answers[1][name])

    def test_it_may_be_closed_twice(self, own):
        own.close()
        own.close()

    def test_a_closed_model_refuses(self, own, inputs):
        given = inputs(1)
        own.close()
        with pytest.raises(Internal, match="the model is closed"):
            own.run(given)


def _shifted(array: np.ndarray) -> np.ndarray:
    """The same array at an address that its elements would not choose."""
    return np.frombuffer(bytes(1) + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
