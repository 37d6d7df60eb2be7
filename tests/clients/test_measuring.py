"""Programs that measure: lm-evaluation-harness and guidellm as they are."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1500)]
CAPITALS = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid"}
CHOICES = """\
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{country}} is the city of"
doc_to_choice: [Paris, Rome, Berlin, Madrid]
doc_to_target: capital
metric_list: [{metric: acc}]
"""
GENERATED = """\
task: spoken
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "QUESTION Japan?\\nA: Tokyo\\n\\nQUESTION {{country}}?\\nA:"
doc_to_target: capital
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
filter_list:
  - name: stripped
    filter:
      - {function: regex, regex_pattern: "([A-Z][a-z]+)"}
      - {function: take_first}
metric_list: [{metric: exact_match}]
""".replace("QUESTION", "Q: What is the capital of")


@pytest.fixture
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"country": country, "capital": city} for country, city in CAPITALS.items()]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, text in (("capitals", CHOICES), ("spoken", GENERATED)):
        (folder / f"{name}.yaml").write_text(text.replace("DATA", str(folder / "data.jsonl")))
    return folder


def lm_eval(program, tasks, tmp_path, model, *settings):
    """Results by task, and the samples of each."""
    program = program("lm_eval")
    program.command(
        "-m", "lm_eval", "run", "--model", model, "--model_args", ",".join(settings),
        "--include_path", tasks, "--tasks", "capitals,spoken", "--log_samples",
        "--output_path", tmp_path / "out", HF_HOME=str(tmp_path / "hf"), timeout_s=600,
    )  # fmt: skip
    (results,) = tmp_path.glob("out/**/results_*.json")
    samples = {
        name: [json.loads(line) for line in next(tmp_path.glob(pattern)).open()]
        for name in ("capitals", "spoken")
        for pattern in (f"out/**/samples_{name}_*.jsonl",)
    }
    return json.loads(results.read_text())["results"], samples


def test_lm_eval_scores_and_generates(program, tasks, tmp_path, tokenizer_folder, service):
    results, samples = lm_eval(
        program, tasks, tmp_path, "local-completions", "model=demo",
        f"base_url={service.url}/v1/completions", f"tokenizer={tokenizer_folder}",
        "tokenizer_backend=huggingface", "num_concurrent=4",
    )  # fmt: skip
    assert results["capitals"]["acc,none"] == 1.0
    assert results["spoken"]["exact_match,stripped"] == 1.0
    greedy = 0
    for sample in samples["capitals"]:
        told = [(float(score), first == "True") for ((score, first),) in sample["resps"]]
        assert all(score < 0 for score, _ in told)
        assert all(score == max(told)[0] for score, first in told if first)
        greedy += sum(first for _, first in told)
    assert greedy >= 2


def test_guidellm_measures(program, tmp_path, tokenizer_folder, service):
    out = tmp_path / "out.json"
    program("guidellm").command(
        "-m", "guidellm", "run", "--backend", f"kind=openai_http,target={service.url},model=demo",
        "--profile", "kind=concurrent,streams=2", "--constraint", "kind=max_requests,count=6",
        "--tokenizer", f"kind=huggingface_auto,model={tokenizer_folder}",
        "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16",
        "--output", f"kind=json,path={out}", "--disable-progress",
        HF_HOME=str(tmp_path / "hf"), timeout_s=600,
    )  # fmt: skip
    (measured,) = json.loads(out.read_text())["benchmarks"]
    metrics = measured["metrics"]
    totals = metrics["request_totals"]
    assert totals == {"successful": 6, "errored": 0, "incomplete": 0, "total": 6}
    assert metrics["output_token_count"]["successful"]["mean"] == 16
    assert metrics["prompt_token_count"]["successful"]["min"] >= 64
    ttft = metrics["time_to_first_token_ms"]["successful"]["median"]
    assert 0 < ttft < 1000 * metrics["request_latency"]["successful"]["median"]
