"""What load tests make of what they measured."""

import json
import platform
from pathlib import Path

import pytest

from loadtests import big_upload, footprint, generate_worker, overhead, page_view, token_cost
from loadtests.__main__ import commands
from loadtests.journey import _step
from loadtests.results_file import percentile, write_result

FOLDER = Path(overhead.__file__).parent


def round_of(first_text_ms: list[float], tokens_per_s: float) -> overhead.Round:
    return overhead.Round([ms / 1000 for ms in first_text_ms], 1.0, tokens_per_s, api_cpu_s=0.02)


def comparison(ours: list[overhead.Round], bare: list[overhead.Round]) -> overhead.Comparison:
    return overhead.Comparison(16, {overhead.API: ours, overhead.BARE: bare})


def test_what_is_added_is_the_median_of_the_rounds_differences() -> None:
    # The machine was slow in the second round, in both ways.
    found = comparison(
        [round_of([11, 12, 13], 90), round_of([111, 112, 113], 9), round_of([13, 14, 15], 80)],
        [round_of([10, 10, 10], 100), round_of([105, 105, 105], 10), round_of([10, 10, 10], 100)],
    )

    assert found.added_ms().median == pytest.approx(4)
    assert found.throughput().median == pytest.approx(0.9)
    assert found.api_cpu_ms() == pytest.approx(20 / 3)


@pytest.mark.parametrize(("added", "word"), [(2.9, "met"), (3.1, "MISSED")])
def test_the_report_says_whether_a_target_is_met(added: float, word: str) -> None:
    found = comparison([round_of([10 + added], 96)], [round_of([10], 100)])
    follow_ups = {way: [overhead.FollowUp(1.0, 0.34, 600)] for way in (overhead.API, overhead.BARE)}

    text = overhead.report([found], follow_ups)

    assert f"Added with 16 client: {added:.1f} ms, target 3, {word}." in text
    assert "0.96 of vLLM's, target 0.95, met." in text
    assert "0.34, target 0.35, met." in text


def test_answers_that_differ_are_counted() -> None:
    found = {
        generate_worker.EYEPIECE: [generate_worker.Round(["a", "b"], 1.0)],
        generate_worker.GENERATE: [generate_worker.Round(["a", "c"], 4.0)],
    }

    text = generate_worker.report(found)

    assert "1 of 2 answers are the same" in text
    assert "4.0 (4.0–4.0), target 5, MISSED" in text


def token_round(request_ms: float, token_ms: dict[str, float], requests: int = 8) -> token_cost.Round:
    def batch(tokens: int) -> token_cost.Batch:
        cpu_s = {name: requests * (request_ms + tokens * ms) / 1000 for name, ms in token_ms.items()}
        return token_cost.Batch(requests, requests * tokens, requests * tokens // 2, cpu_s)

    return token_cost.Round(batch(token_cost.SHORT_TOKENS), batch(token_cost.LONG_TOKENS))


def test_a_tokens_cost_is_told_from_its_requests() -> None:
    one = token_round(12.5, {token_cost.API: 0.05})

    assert one.token_ms(token_cost.API) == pytest.approx(0.05)
    assert one.request_ms(token_cost.API) == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("ours", "of_vllm", "words"),
    [(0.09, 0.1, ("met", "met")), (0.11, 0.1, ("MISSED", "MISSED")), (0.09, 0.08, ("met", "MISSED"))],
)
def test_a_tokens_cost_is_judged_by_the_dearer_dialect_and_beside_vllm(
    ours: float, of_vllm: float, words: tuple[str, str]
) -> None:
    cheap, dear = ({token_cost.API: cost, token_cost.VLLM: of_vllm} for cost in (0.02, ours))

    text = token_cost.report({"questions": [token_round(10, cheap)], "chat completions": [token_round(9, dear)]})

    assert f"A token: {ours:.3f} ms, target 0.1, {words[0]}." in text
    assert f"vLLM's API server: {of_vllm:.3f} ms; no more than that: {words[1]}." in text
    assert "| 2.00 |" in text  # tokens an event


def test_memory_is_the_most_that_a_process_had() -> None:
    text = footprint.report(
        {"Redis": 9.6}, {"Redis": 30.2, "eyepiece api": 120.0}, {"embedding": 885_000, "conversation": 4_200}
    )

    assert "| Redis | 10 | 30 |" in text
    assert "| eyepiece api | 0 | 120 |" in text
    assert "| embedding | 0.89 |" in text
    assert "| 5 turns | 0.0042 |" in text


def test_an_upload_is_compared_with_the_slower_of_disk_and_hash() -> None:
    one = big_upload.Round(400, 800, 360, api_cpu_s_per_gb=2, before_mb=100, peak_mb=170)

    assert one.ratio == pytest.approx(0.9)
    assert "grew by 70 MB, target 64, MISSED" in big_upload.report(500, [one])


@pytest.mark.parametrize(("percent", "verdict"), [(50, "met"), (95, "MISSED")])
def test_what_was_waited_for_is_judged_by_the_percentile_of_its_target(percent: int, verdict: str) -> None:
    waited = page_view.Waited("a tile", [10.0] * 18 + [80.0] * 2, percent, 50)

    assert waited.is_met is (verdict == "met")
    assert f"| a tile | 20 | 10.0 | 80.0 | 80.0 | {'median' if percent == 50 else 'p95'} ≤ 50, {verdict} |" in (
        page_view.report([waited])
    )


def test_the_99th_percentile_of_few_is_their_largest() -> None:
    assert percentile([1.0, 2.0, 9.0], 99) == 9.0
    assert percentile([float(value) for value in range(1001)], 99) == pytest.approx(990)


def test_a_steps_times_come_from_locusts_histogram() -> None:
    entry = {
        "name": "upload",
        "num_requests": 20,
        "num_failures": 1,
        "response_times": {"300": 1, "10": 10, "20": 9},
        "max_response_time": 301.5,
    }

    step = _step(entry)

    assert (step.median_ms, step.p95_ms, step.most_ms) == (10, 20, 301.5)


def test_results_name_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.results_file.LOCAL", tmp_path)

    text = write_result("overhead", {"rounds": []}).read_text()

    assert json.loads(text)["load_test"] == "overhead"
    assert platform.node() not in text


@pytest.mark.parametrize("long", [True, False])
def test_every_load_test_is_there_and_described(long: bool) -> None:
    readme = (FOLDER / "README.md").read_text()
    for name in commands(long):
        assert (FOLDER / f"{name}.py").is_file()
        assert f"`{name}.py`" in readme
