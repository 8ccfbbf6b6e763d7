"""When a group is guided, what each attempt is given, and how members are recorded."""

import json
from dataclasses import replace

import anyio
import pytest

from agent_rl.config import build
from agent_rl.errors import ConfigError, UserError
from agent_rl.guidance.config import GuidanceConfig
from agent_rl.guidance.environment import GuidedEnvironments
from agent_rl.guidance.group import GuidedGroups
from agent_rl.guidance.training import Guided
from agent_rl.imitation import hardest
from agent_rl.rollout.control import RolloutControl
from agent_rl.rollout.group import run_group
from agent_rl.rollout.manager import RolloutManager
from agent_rl.rollout.staleness import StalenessGate
from agent_rl.store.opening import create_journal
from agent_rl.types import Failure, Message, Owner, StopReason

from .conftest import LIMITS, Steps, playing

pytestmark = pytest.mark.anyio


def nothing(prompt, turn):
    return "?"


def follow(prompt, turn):
    """Says what the prompt tells of each word, as long as it tells; else nothing right."""
    told = dict(
        line.split("word ")[1].split(" is ") for m in prompt for line in m.content.splitlines() if "word " in line
    )
    return told.get(str(turn), "?")


async def expert(task, *, group_index, member, seed):
    from agent_rl.rollout.agent import OracleAgent
    from agent_rl.rollout.episode import run_episode

    return await run_episode(
        lambda task: Steps(),
        lambda environment, key: OracleAgent(environment),
        task,
        group_index=group_index,
        member=member,
        seed=seed,
        limits=LIMITS,
    )


async def guided(task, say, seen=None, expert=expert, **options):
    config = GuidanceConfig(**options)
    return await GuidedGroups(config, expert)(playing(say, seen), task, index=3, group_size=2, seed=7, retry_delay_s=0)


async def test_a_group_that_succeeds_is_left_alone(three):
    says = iter(["one", "two", "three", "?", "?", "?", "?"])
    group = await GuidedGroups(GuidanceConfig(kind="hint"), expert)(
        playing(lambda prompt, turn: next(says)), three, index=0, group_size=1, seed=0
    )
    assert [episode.guidance for episode in group.trajectories] == [None]


async def test_up_to_which_share_of_successes(three):
    """One of two succeeds: guided when half may succeed, and not below."""

    def play_of(config):
        async def play(task, *, group_index, member, seed):
            say = (lambda prompt, turn: task.data["words"][turn]) if member == 0 else nothing
            return await playing(say)(task, group_index=group_index, member=member, seed=seed)

        return GuidedGroups(config, expert)(play, three, index=0, group_size=2, seed=0)

    assert len((await play_of(GuidanceConfig(kind="hint", up_to=0.4))).trajectories) == 2
    assert len((await play_of(GuidanceConfig(kind="hint", up_to=0.5))).trajectories) == 2 + 4


async def test_a_hint_grows_until_it_is_enough(three):
    seen = []
    group = await guided(three, follow, seen, kind="hint", share=1 / 3, rounds=5, attempts=2)
    assert [episode.member for episode in group.trajectories] == list(range(8)), "two, and three rounds of two"
    assert [episode.guidance and episode.guidance.round for episode in group.trajectories] == [
        None,
        None,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    hints = [episode.guidance.text for episode in group.trajectories[2::2]]
    assert [hint.count("\n") + 1 for hint in hints] == [1, 2, 3]
    assert hints[0] == "Hint: word 0 is one"
    assert [round(episode.reward, 6) for episode in group.trajectories] == [0, 0, 0.1, 0.1, 0.2, 0.2, 1, 1]
    assert all(episode.task == three for episode in group.trajectories), "the guidance is beside the task"
    assert {(member, seed) for _, member, seed in seen} == {(member, 7) for member in range(8)}
    assert [m.content for m in group.trajectories[2].prompt] == ["a game", f"go\n\n{hints[0]}"]


async def test_a_hint_as_text_is_cut_at_words_and_the_expert_speaks_where_there_is_none(with_data):
    group = await guided(with_data(hint="aa bb cc dd ee"), nothing, kind="hint", share=0.5, attempts=1)
    assert group.trajectories[-1].guidance.text == "Hint: aa bb cc"
    group = await guided(with_data(hint=None), nothing, kind="hint", share=0.5, attempts=1)
    assert group.trajectories[-1].guidance.text == "Hint: one\ntwo"


async def test_feedback_shows_how_a_failed_attempt_ended(three):
    group = await guided(three, nothing, kind="hint", feedback=True, attempts=1, attempt_chars=5)
    assert group.trajectories[-1].guidance.text.startswith("An earlier attempt ended with: right\nHint: ")


async def test_knowledge_begins_with_single_points_and_ends_with_the_smallest_set_that_does(with_data):
    points = ["word 0 is one", "word 1 is two", "word 2 is three"]
    group = await guided(with_data(knowledge=points), follow, kind="knowledge", rounds=9, attempts=3)
    texts = [episode.guidance.text for episode in group.trajectories if episode.guidance]
    sets = [tuple(line for line in text.splitlines() if line.startswith("- ")) for text in texts]
    assert [len(one) for one in sets] == [1, 1, 1, 2, 2, 2, 3, 3, 3], "three points are enough: no fourth round"
    assert len({*sets[:3]}) == len({*sets[3:6]}) == 3, "attempts of a round try different sets"
    again = await guided(with_data(knowledge=points), follow, kind="knowledge", rounds=9, attempts=3)
    assert [episode.guidance for episode in again.trajectories] == [episode.guidance for episode in group.trajectories]


async def test_an_experts_prefix_is_played_and_leaves_the_rest_to_the_policy(three):
    group = await guided(three, lambda prompt, turn: "three", kind="prefix", share=0.3, rounds=3, attempts=1)
    first, second = (episode for episode in group.trajectories if episode.guidance)
    assert [action.content for action in first.guidance.actions] == ["one"]
    assert [action.content for action in second.guidance.actions] == ["one", "two"]
    shown = [
        Message("assistant", "one"),
        Message("user", "1 right"),
        Message("assistant", "two"),
        Message("user", "2 right"),
    ]
    assert list(second.prompt) == [*three.prompt, *shown]
    assert [turn.action.content for turn in second.turns] == ["three"], "what the expert did is no turn"
    assert second.turns[0].state_key == 2
    assert second.reward == pytest.approx(1.0), "worth as much as an episode that began by itself"
    assert second.turns[0].reward_terms == {"right": 3.0}
    assert second.metrics["said"] == 3.0
    assert first.reward == pytest.approx(0.1), "what the expert earned counts once"


async def test_a_prefix_always_leaves_something_to_do(three):
    group = await guided(three, nothing, kind="prefix", share=1.0, attempts=1)
    assert len(group.trajectories[-1].guidance.actions) == 2


async def test_a_demonstration_in_the_task_goes_before_the_oracle(with_data):
    chat = [{"role": "user", "content": "go"}, *({"role": "assistant", "content": w} for w in ("one", "two", "three"))]
    group = await guided(with_data(demonstration=chat), nothing, expert=None, kind="prefix", share=0.3, attempts=1)
    assert [action.content for action in group.trajectories[-1].guidance.actions] == ["one"]
    with pytest.raises(UserError, match="demonstration"):
        await guided(with_data(demonstration="one two"), nothing, kind="prefix")


async def test_without_an_oracle_it_is_said_what_is_missing(three):
    class NoOracle(Steps):
        def oracle_action(self):
            raise NotImplementedError("NoOracle has no oracle")

    training = Guided(GuidanceConfig(kind="prefix"), lambda task: NoOracle(), LIMITS)
    with pytest.raises(UserError, match="no oracle: nobody can show how"):
        await training.play_group(playing(nothing), three, index=0, group_size=2, seed=0)


async def test_an_expert_that_fails_guides_nobody(three):
    async def fails(task, **of_episode):
        return replace(await expert(task, **of_episode), failure=Failure("crash", Owner.ENVIRONMENT, "step", "gone"))

    assert len((await guided(three, nothing, expert=fails, kind="prefix")).trajectories) == 2


async def test_the_policy_criticises_itself(with_data):
    asked = []

    def say(prompt, turn):
        if "went wrong" in prompt[0].content:
            asked.append(prompt[0].content)
            return "word 0 is one\nword 1 is two\nword 2 is three"
        return follow(prompt, turn)

    seen = []
    group = await guided(with_data(reference="one two three"), say, seen, kind="critique", attempts=3)
    episodes = [episode for episode in group.trajectories if episode.guidance]
    assert [round(episode.reward, 6) for episode in episodes] == [1, 1, 1]
    assert [episode.member for episode in episodes] == [2, 3, 4]
    assert len(group.trajectories) == 5, "a critique is no episode of the task"
    assert "assistant: ?\nuser: 0 right" in asked[0]
    assert "one two three" in asked[0]
    assert episodes[0].guidance.text.startswith("An earlier attempt, which failed:\nassistant: ?\nuser: 0 right")
    assert "What was wrong with it: word 0 is one" in episodes[0].guidance.text
    assert len({task.id for task, _, _ in seen}) == 2, "critiques have random streams of their own"


async def test_nobody_criticises(three):
    group = await guided(three, lambda prompt, turn: "", kind="critique")
    assert len(group.trajectories) == 2


async def test_infrastructure_failures_are_no_reason_to_guide(three):
    async def play(task, *, group_index, member, seed):
        episode = await playing(nothing)(task, group_index=group_index, member=member, seed=seed)
        lost = Failure("crash", Owner.SANDBOX, "step", "gone", retryable=False)
        return replace(episode, failure=lost, stop_reason=StopReason.FAILURE)

    group = await GuidedGroups(GuidanceConfig(kind="hint"), expert)(play, three, index=0, group_size=2, seed=0)
    assert len(group.trajectories) == 2


async def test_guided_members_pass_the_operators_slots_and_are_durable_with_their_group(three, tmp_path):
    control, running = RolloutControl(2), []

    async def play(task, **of_episode):
        running.append(len(control.running))
        return await playing(nothing)(task, **of_episode)

    journal = create_journal(tmp_path, store="", config=GuidanceConfig(), timeout_s=5)
    training = Guided(GuidanceConfig(kind="prefix", share=0.3), lambda task: Steps(), LIMITS)

    async def durable(group):
        journal.append_group(group)

    manager = RolloutManager(
        play,
        lambda index: three,
        group_size=3,
        gate=StalenessGate(0, 1),
        seed=0,
        control=control,
        stop_index=1,
        on_group=durable,
        play_group=training.play_group,
    )
    with journal:
        async with manager:
            [group] = [group async for group in manager.groups()]
        stored = journal.load_groups()[0]
    assert len(group.trajectories) == 3 + 4
    assert max(running) <= 2
    assert [episode.guidance for episode in stored.trajectories] == [episode.guidance for episode in group.trajectories]
    assert stored.trajectories[-1].prompt == group.trajectories[-1].prompt


async def test_a_snapshot_keeps_what_the_expert_earned(three):
    from agent_rl.guidance.task import guided_task
    from agent_rl.types import Guidance

    task = guided_task(three, Guidance("prefix", actions=(Message("assistant", "one"),)))
    make = GuidedEnvironments(lambda task: Steps())
    first, second = make(task), make(three)
    await first.reset(task, 0)
    await second.reset(three, 0)
    await second.restore(await first.snapshot())
    assert (await second.step(Message("assistant", "two"))).reward == pytest.approx(0.2)


# --- what training sees --------------------------------------------------------------------------------------------


async def test_what_credit_sees_and_what_is_measured(three):
    group = await guided(three, follow, kind="hint", share=1.0, attempts=1)
    members = lambda credit: [  # noqa: E731
        episode.member
        for episode in Guided(GuidanceConfig(kind="hint", credit=credit), Steps, LIMITS).credited(group).trajectories
    ]
    assert members("join") == [0, 1, 2]
    assert members("replace") == [1, 2]
    assert members("imitation") == [0, 1]
    plain = await run_group(playing(nothing), three, index=0, group_size=2, seed=0)
    metrics = Guided(GuidanceConfig(kind="hint"), Steps, LIMITS).metrics([group, plain])
    assert metrics == {
        "guided_groups": 0.5,
        "unguided_success": 0.0,
        "guided_success": 1.0,
        "rescued_groups": 1.0,
        "rounds": 1.0,
    }
    assert Guided(GuidanceConfig(), Steps, LIMITS).metrics([group]) == {}
    assert hardest(group, 1.0), "an episode that was guided does not make a task easy"
    assert not hardest(group, 0.0)


async def test_without_guidance_nothing_is_wrapped(three):
    training = Guided(GuidanceConfig(), Steps, LIMITS)
    assert training.environment is Steps
    assert training.play_group is run_group


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rounds": 2}, "set guidance.kind"),
        ({"kind": "hnt"}, "hint"),
        ({"kind": "knowledge", "share": 0.5}, "knowledge has no share"),
        ({"kind": "prefix", "feedback": True}, "prefix has no feedback"),
        ({"kind": "hint", "teacher": {"model": "m"}}, "hint has no teacher"),
        ({"kind": "hint", "attempt_chars": 9}, "set feedback"),
        ({"kind": "prefix", "in_context": False}, "cannot be left out"),
        ({"kind": "hint", "shares": 0.1}, "Did you mean 'share'"),
    ],
)
def test_refused(values, says):
    with pytest.raises(ConfigError) as error:
        build(GuidanceConfig, values)
    assert says in str(error.value)


def test_the_teacher_answers_and_its_silence_is_no_error(three):
    import json as _json
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from agent_rl.tool.config import ToolsConfig
    from agent_rl.tool.services import tool_services

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = _json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert "went wrong" in asked["messages"][0]["content"]
            broken = asked["model"] == "broken"
            message = {"role": "assistant", "content": "word 0 is one\nword 1 is two\nword 2 is three"}
            body = json.dumps(
                {"choices": [{"message": message, "finish_reason": "content_filter" if broken else "stop"}]}
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    async def rewards(model):
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        async with tool_services(ToolsConfig()):
            group = await guided(three, follow, kind="critique", teacher={"model": model, "base_url": url})
        return [round(episode.reward, 6) for episode in group.trajectories]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert anyio.run(rewards, "good") == [0, 0, 1, 1, 1, 1]
        assert anyio.run(rewards, "broken") == [0, 0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
