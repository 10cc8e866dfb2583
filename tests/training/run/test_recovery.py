"""Going back after numbers that were not finite."""

from training.run.recovery import Recovery, go_back
from training.run.snapshots import load_state, save_state


def test_going_back_to_a_state_of_an_earlier_version(tmp_path):
    """Such states know neither of returns nor of the sizes of logs."""
    path = tmp_path / "training-state-000001.pt"
    save_state(path, {"run": {"images_seen": 1000}})
    lines = []
    assert go_back(str(tmp_path), "a loss was not finite", 1500, lines.append) == str(path)
    state = load_state(path)
    assert state["recovery"]["past"] == {"rollbacks": 1, "rate": 0.5, "until": 21500}
    assert len(lines) == 1
    recovery = Recovery([], 10)
    recovery.load_state_dict(state["recovery"])
    assert recovery.past["rate"] == 0.5
