from agent_rl.view.timeline import timeline


def test_lanes_have_what_an_episode_spent_its_time_on(run_dir, journal):
    found = timeline(journal, run_dir, first=1, count=1)
    assert found["groups"] == 3
    assert [(lane["group"], lane["member"]) for lane in found["episodes"]] == [(1, member) for member in range(4)]
    lane = found["episodes"][0]
    assert lane["began_at"] == 1_700_000_010.0
    assert lane["spans"] == [
        ["setup", 0.0, 0.5],
        ["generation", 1.0, 1.0],
        ["tools", 2.0, 0.5],
        ["generation", 3.0, 1.0],
        ["tools", 4.0, 0.5],
    ]
    assert lane["failure"] is None
    assert found["episodes"][3]["failure"] == "sandbox: the sandbox is gone"


def test_the_trainer_is_shown_only_in_the_same_window(run_dir, journal):
    # Group 1 runs from 10 to 18 s; the learner's steps are from 8 to 10 s and from 18 to 20 s.
    assert timeline(journal, run_dir, 1, 1)["trainer"] == []
    # Groups 0 to 2 run from 0 to 28 s.
    assert timeline(journal, run_dir, 0, 3)["trainer"] == [
        ["learn", 1_700_000_008.0, 2.0],
        ["learn", 1_700_000_018.0, 2.0],
    ]
    assert timeline(journal, run_dir, 9, 3) == {"episodes": [], "trainer": [], "groups": 3}
