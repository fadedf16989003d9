"""The page of models and uses: all its parts run on small digits, and it says what the numbers say."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as cli
from benchmarks import machine, report
from benchmarks.quality import aids, anomaly, collapse, command, conditional, iwae, latent, page, restore
from benchmarks.quality.runs import Workshop, log_p, slug, words
from benchmarks.quality.shown import difference
from tinyvae.commands import main as tinyvae_main
from tinyvae.errors import NonFiniteError, UsageError
from tinyvae.recipes import evidence
from tinyvae.training.signals import StopRequest

ROOT = Path(__file__).parent.parent
MACHINE = {"cpu": "a CPU", "cores": 2, "os": "Linux", "python": "3.11", "versions": {"tinyvae": "0", "numpy": "2"}}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `quality --quick` made, all parts run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("quick")
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(machine, "describe", lambda: MACHINE)
        patch.setattr(evidence, "FRESH", 200)  # the two-sample test compares all pairs of points
        patch.setattr(evidence, "PERMUTATIONS", 19)
        assert cli.main(["quality", "--quick"]) == 0
    (made,) = folder.iterdir()
    return made


def document(folder: Path, part: str) -> dict[str, Any]:
    return json.loads(page.path_of(folder / "results", part).read_text())


@pytest.mark.sweeps
def test_every_part_has_its_numbers_its_tables_and_its_pictures(quick: Path) -> None:
    text = (quick / "QUALITY.md").read_text()
    noises = {part: page.PARTS[part].seed_noise(document(quick, part)["results"]) for part in ("aids", "collapse")}
    for name, module in page.PARTS.items():
        results = document(quick, name)["results"]
        assert f"## {module.TITLE}" in text
        assert f"python -m benchmarks quality --parts {name} --data-dir DIR" in text
        for table in module.tables(results):
            assert table.markdown() in text
            assert all(len(row) == len(table.header) for row in table.rows), table.title
        for stem in module.PICTURES:
            assert f"](figures/quality/{stem}.png)" in text
            assert (quick / "figures" / "quality" / f"{stem}.png").stat().st_size > 1000
        assert all(f"- {note}" in text for note in module.notes(results, noises[getattr(module, "NOISE", "aids")]))
    assert set(module_pictures()) == {path.stem for path in (quick / "figures" / "quality").iterdir()}
    assert "Not measured yet" not in text


def module_pictures() -> list[str]:
    return [stem for module in page.PARTS.values() for stem in module.PICTURES]


@pytest.mark.sweeps
def test_the_page_names_no_place_of_this_machine(quick: Path) -> None:
    for path in (quick / "QUALITY.md", *(quick / "results").iterdir()):
        assert not re.search(r"(?<![\w.])/(tmp|home|work|root|usr)\b", path.read_text()), path.name


@pytest.mark.sweeps
def test_the_page_is_written_from_the_numbers_alone(quick: Path, tmp_path: Path) -> None:
    page.write(quick / "results", tmp_path / "QUALITY.md", tmp_path / "figures" / "quality")
    drawn = {"collapse", "latent", "anomaly"}  # the other pictures show what models made
    lost = [
        f"![{stem}](figures/quality/{stem}.png)\n\n{seen}\n\n"
        for module in page.PARTS.values()
        for stem, seen in module.PICTURES.items()
        if stem not in drawn
    ]
    text = (quick / "QUALITY.md").read_text() + "\n"
    for part in lost:
        text = text.replace(part, "")
    assert (tmp_path / "QUALITY.md").read_text().strip() == text.strip()
    charts = {path.stem for path in (tmp_path / "figures" / "quality").iterdir()}
    assert charts == drawn


@pytest.mark.sweeps
def test_report_writes_the_page_too(quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\n{report.END}\n")
    assert cli.main(["report", "--results", str(quick / "results"), "--readme", str(readme)]) == 0
    assert "QUALITY.md: 9 parts" in capsys.readouterr().out
    assert "## Collapse" in (tmp_path / "QUALITY.md").read_text()


@pytest.mark.sweeps
def test_parts_that_were_not_measured_are_named(quick: Path, tmp_path: Path) -> None:
    page.path_of(tmp_path, "iwae").write_text(page.path_of(quick / "results", "iwae").read_text())
    assert page.write(tmp_path, tmp_path / "QUALITY.md", tmp_path / "pictures") == 1
    text = (tmp_path / "QUALITY.md").read_text()
    others = ", ".join(f"`{name}`" for name in page.PARTS if name != "iwae")
    assert f"Not measured yet: {others}." in text


@pytest.mark.parametrize("content", ["{", "[]", '{"command": "step"}', '{"command": "quality"}'])
def test_a_file_that_is_none_of_ours_is_refused_in_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page.path_of(tmp_path, "aids").write_text(content)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "PAGE", tmp_path / "QUALITY.md")
    assert cli.main(["quality", "--report-only"]) == 2
    assert re.fullmatch(r".*quality-aids.json: is no result of .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("part", page.PARTS)
def test_numbers_of_another_version_are_refused(part: str, tmp_path: Path) -> None:
    found = {"command": "quality", "machine": MACHINE, "threads": 1, "results": {"other": {"x": 1}}}
    page.path_of(tmp_path, part).write_text(json.dumps(found))
    with pytest.raises(UsageError, match=f"quality-{part}.json: lacks what the page needs"):
        page.write(tmp_path, tmp_path / "QUALITY.md", tmp_path / "pictures")


@pytest.mark.parametrize("wrong", [["--parts", "nothing"], ["--data-dir", "no/such/folder"]])
def test_wrong_arguments_get_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["quality", *wrong])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("runs"), quick=True)


def test_a_run_is_that_of_the_train_command_and_is_used_again(shop: Workshop, tmp_path: Path) -> None:
    made = shop.train(hidden=(8,), latent=2, epochs=5, lr=1e-3)
    assert made.path.name == "data-digits-hidden-4-latent-2-epochs-2"
    arguments = [
        "train",
        *words(made.options),
        "--valid",
        "none",
        "--quiet",
        "--no-figures",
        "--out",
        str(tmp_path / "run"),
    ]
    assert tinyvae_main(arguments) == 0
    table = [line.split(",")[2:] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    assert table == [line.split(",")[2:] for line in (made.path / "metrics.csv").read_text().splitlines()]
    before = (made.path / "metrics.csv").stat().st_mtime_ns
    again = Workshop(shop.out, quick=True).train(latent=2, hidden=(8,), epochs=5)
    assert again.last == made.last
    assert (made.path / "metrics.csv").stat().st_mtime_ns == before


def test_a_run_that_was_stopped_is_gone_on_with(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"hidden": (8,), "latent": 3, "epochs": 5, "seed": 3}
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__enter__", stopped)
        with pytest.raises(KeyboardInterrupt):
            shop.train(**options)
    whole = Workshop(shop.out.with_name("whole"), quick=True).train(**options)
    assert shop.train(**options).test.loss == whole.test.loss


TRUE_ENTER = StopRequest.__enter__


def stopped(self: StopRequest) -> StopRequest:
    TRUE_ENTER(self)
    self.received = 2
    return self


def test_different_options_are_different_runs() -> None:
    options = [{"beta": 1.5}, {"beta": 15.0}, {"hidden": (1, 5)}, {"hidden": (15,)}, {"seed": 1}, {"tied": True}, {}]
    assert len({slug({"data": "mnist", **each}) for each in options}) == len(options)


def test_log_p_is_what_evaluate_prints(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    made = shop.train(**collapse.NET)  # dynamically binarized: the draws must be the same too
    capsys.readouterr()
    assert tinyvae_main(["evaluate", str(made.path), "--json", "--nll-samples", "20"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert log_p(made, 20) == pytest.approx((printed["log_likelihood"], printed["log_likelihood_se"]), rel=1e-12)


def test_the_kl_of_each_dimension_sums_to_the_kl(shop: Workshop) -> None:
    made = shop.train(**collapse.NET)
    found = collapse.kl_of_each(made)
    assert found == sorted(found, reverse=True)
    assert sum(found) == pytest.approx(made.test.kl, rel=1e-4)  # no draw of z is in it


# --------------------------------------------------------------------------------------------------- what the page says


def test_a_difference_that_seeds_make_is_called_none() -> None:
    assert difference("A", 105.0, 105.3, 0.2) == "A: 0.30 nats lower (better) than plain training, more than seeds do."
    assert "no difference" in difference("A", 105.4, 105.3, 0.2)
    assert "higher (worse)" in difference("A", 105.6, 105.3, 0.2)
    assert difference("A", 105.4, 105.3, None).endswith("than plain training.")


def test_seed_noise_is_the_range_over_the_seeds() -> None:
    assert aids.seed_noise({"seeds": {str(i): {"loss": x} for i, x in enumerate([3.0, 1.5, 2.0])}}) == 1.5


def test_seed_noise_of_the_likelihood_is_the_range_over_the_plain_runs() -> None:
    runs = {"plain": loss(1, 5, -90), "plain, seed 1": loss(1, 5, -90.5), "--free-bits 1": loss(1, 5, -70)}
    assert collapse.seed_noise(runs) == 0.5


def test_training_that_diverges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(**options: Any) -> None:
        raise NonFiniteError("the loss is nan")

    results = {"losses": loss(105.0)}["losses"]
    monkeypatch.setattr(Workshop, "train", lambda self, **options: diverge())
    assert aids._tried(Workshop(Path()), {}) is None
    found = {
        "seeds": {f"plain, seed {seed}": results for seed in aids.SEEDS}, "aids": {},
        "high": {f"--lr {rate:g}, {name}": None for rate in aids.RATES for name in aids.HIGH},
    }  # fmt: skip
    assert any("no number" in note for note in aids.notes(found, None))
    assert "no number" in aids.tables(found)[1].markdown()


def loss(value: float, units: int = 5, log: float = -90.0) -> dict[str, Any]:
    return {
        "parameters": 10, "epochs": 1, "loss": value, "nll": 80.0, "kl": 20.0, "active_units": units, "latent": 50,
        "log_p": log, "log_p_se": 0.5, "kl_of_each": [1.0, 0.5],
    }  # fmt: skip


def test_more_active_units_without_a_better_likelihood_are_told() -> None:
    results = {"plain": loss(100, 5, -90), "--free-bits 1": loss(110, 9, -95), "--beta-warmup 5": loss(99, 4, -89.9)}
    notes = collapse.notes(results, 0.3)
    assert "differs by 0.30 nats at most" in notes[0]
    assert "4 active units more, and log p(x) is 5.00 nats lower (worse): more units, and yet a worse model" in notes[1]
    assert "1 active units fewer, and log p(x) is 0.10 nats higher (better), no more than seeds differ by" in notes[2]


def test_the_other_notes_have_the_right_signs() -> None:
    (note,) = iwae.notes({"elbo": loss(0, 5, -90), "iwae, K = 5": loss(0, 7, -89)}, 0.2)
    assert "1.00 nats higher (better) than by the ELBO, more than seeds differ by; 7 active units against 5" in note
    share = {"vae": {"softmax": 0.9, "knn": 0.8}, "pca": {"softmax": 0.8, "knn": 0.9}, "loss": 100.0}
    notes = latent.notes({"sizes": {"2": share}, "raw": {"softmax": 0.95, "knn": 0.7}, "rows": 10_000}, 0.2)
    assert "mu is better than PCA at d = 2, worse at none" in notes[1]
    assert "mu is better than PCA at d = none, worse at 2" in notes[2]
    assert notes[1].endswith("raw pixels at none.")
    assert notes[2].endswith("raw pixels at 2.")
    digit = {"auroc": 0.4, "all_seen": 0.3, "score": 1.0, "others": 2.0}
    notes = anomaly.notes(
        {"digits": {"1": digit, "2": {**digit, "auroc": 0.8}}, "fooled": {"gaussian": {"x": {"auroc": 0.2}}}}, None
    )
    assert "from 0.400 (digit 1) to 0.800 (digit 2)" in notes[0]
    assert "likelier than the rest: 1." in notes[1]
    error = {"value": 0.1, "standard_error": 0.01}
    lines = [{"name": n, "rmse": {**error, "value": v}} for n, v in (("VAE", 0.1), ("a", 0.4), ("b", 0.2))]
    assert restore.notes({"masks": {"half": lines}}, None) == [
        "`half`: the VAE's error is 0.50 times that of the best simple rule (b)."
    ]
    gains = [
        {"labels": 10, "samples": "fair", "difference": {"value": v, "standard_error": 0.01}} for v in (0.1, -0.1, 0.01)
    ]
    results = {"losses": {"plain": loss(105), "--conditional": loss(101)}, "augment": gains}
    verdicts = conditional.notes(results, None)
    assert "4.00 nats lower" in verdicts[0]
    assert [re.search(r"helps|harms|no sure", v)[0] for v in verdicts[1:]] == ["helps", "harms", "no sure"]  # pyright: ignore


def test_the_committed_page_is_what_its_numbers_make(tmp_path: Path) -> None:
    results = ROOT / "benchmarks" / "results"
    committed = ROOT / "benchmarks" / "figures" / "quality"
    pictures = tmp_path / "figures" / "quality"
    pictures.mkdir(parents=True)
    for path in committed.glob("*.png"):
        (pictures / path.name).write_bytes(path.read_bytes())
        assert path.stat().st_size < 150_000
    page.write(results, tmp_path / "QUALITY.md", pictures)
    assert (tmp_path / "QUALITY.md").read_text() == command.PAGE.read_text()
