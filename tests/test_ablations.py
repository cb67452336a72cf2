"""Ablations build and train two steps; the runner compares runs, repeats none, and mixes none up."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import cut_short, run_here, samples, wait_until

from benchmarks.ablations import Run, main, plan, table
from benchmarks.loader import main as loader_main
from benchmarks.speed import bench_loader
from datasets.base import BaseDataset
from datasets.clips import load_clips, merge_index
from datasets.config import AugmentConfig, DataConfig
from datasets.hr import HRDataset
from engine.config import load_config
from engine.options import TrainBaseConfig, TrainHRConfig
from engine.train_base import train as train_base
from engine.train_hr import train as train_hr
from errors import InputError
from models.checkpoint import load_network, read_metadata
from models.config import BaseConfig
from preprocess.clip_variants import Backgrounds, write_variants
from train_base import main as base_main

ROOT = Path(__file__).resolve().parent.parent
ABLATIONS = ROOT / "configs" / "ablations"
SHORT = ["run.steps=2", "run.batch=2", "precision=float32", "data.workers=0"]
TINY = [
    "model.latent_channels=[8,8,8,16]",
    "model.hyper_width=16",
    "model.audio_width=16",
    "model.decoder_channels=[16,8,8]",
    "model.output_channels=8",
    "audio_pretrain.steps=2",
    "audio_pretrain.batch=4",
    "validation.clips=1",
]
TINY_HR = ["model.width=8", "validation.frames=2", "validation.film=2", "data.min_face_px=0", "loss.perceptual=0"]
BASE = [
    "concat",
    "gru_zero_state",
    "hyper_deepest",
    "mel",
    "no_adversarial",
    "no_augmentation",
    "no_sync",
    "noisy_sound",
    "recurrent",
    "reference_far",
    "reference_random",
    "reference_span",
    "references_2",
    "references_4",
    "references_by_pose",
    "references_concatenated",
    "references_moved",
]
LOADED = {"no_adversarial", "no_augmentation", "no_sync", "reference_far", "reference_random", "reference_span"}
"""They train what others train, with other samples or fewer terms: test_config reads them."""
HR = ["hr_no_reference", "hr_no_sketch", "hr_scale_1", "hr_scale_4", "hr_sketch_68"]


@pytest.fixture(scope="module")
def short(brief, tmp_path_factory) -> Path:
    """The data set cut to six frames, as validation paints them all, with a noisy variant of its training sound."""
    data = shutil.copytree(brief, tmp_path_factory.mktemp("short") / "data")
    clips = load_clips(data, "train")
    write_variants(clips[0], Backgrounds(clips, []), 1, seed=0, again=False)
    return data


@pytest.fixture(scope="module")
def large(painted, tmp_path_factory) -> Path:
    """Six frames of the painted data set, enlarged to 512 px."""
    return cut_short(painted, tmp_path_factory.mktemp("large") / "data", 6, 512)


def test_the_list_of_ablations_is_whole():
    assert sorted(path.stem for path in ABLATIONS.glob("*.yaml")) == sorted(BASE + HR)
    assert all(len(path.read_text().splitlines()) <= 8 for path in ABLATIONS.glob("*.yaml"))


@pytest.mark.parametrize("name", sorted({*BASE} - LOADED))
def test_stage_one_ablations_train(name, short, tmp_path):
    config = load_config(
        TrainBaseConfig, ABLATIONS / f"{name}.yaml", [*SHORT, *TINY, f"data.path={short}", f"run.folder={tmp_path}"]
    )
    best = train_base(config)
    assert load_network(best).config == config.model and int(read_metadata(best)["step"]) == config.run.steps > 0


@pytest.mark.parametrize("name", HR)
def test_stage_two_ablations_train(name, large, tmp_path):
    config = load_config(
        TrainHRConfig, ABLATIONS / f"{name}.yaml", [*SHORT, *TINY_HR, f"data.path={large}", f"run.folder={tmp_path}"]
    )
    best = train_hr(config)
    assert load_network(best).config == config.model and int(read_metadata(best)["step"]) == config.run.steps > 0


def test_one_command_trains_a_list_and_prints_one_table(short, tmp_path, monkeypatch, capsys):
    trained = []

    def train(run: Run) -> dict[str, float]:  # in this process: starting Python again costs seconds
        trained.append(run.folder.name)
        train_base(load_config(TrainBaseConfig, run.config, run.overrides))
        return run.scores()

    def command(*extra: str) -> str:
        chosen = [*SHORT[1:], "layout=channels_last", *TINY, f"data.path={short}", *extra]
        options = [option for text in chosen for option in ("--set", text)]
        monkeypatch.setattr(
            "sys.argv",
            [
                "ablations",
                "--configs",
                str(ROOT / "configs" / "tiny.yaml"),
                str(ABLATIONS / "concat.yaml"),
                "--steps",
                "1",
                "--seeds",
                "0",
                "1",
                "--folder",
                str(tmp_path),
                *options,
            ],
        )
        main()
        return capsys.readouterr().out

    monkeypatch.setattr(Run, "train", train)
    lines = command().splitlines()[-4:]
    assert trained == ["tiny_seed0", "tiny_seed1", "concat_seed0", "concat_seed1"]
    assert lines[0].startswith("| config | seeds | lip_r |") and [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| tiny", "2"],
        ["| concat", "2"],
    ]
    assert "±" in lines[2]
    assert command().splitlines()[-4:] == lines and len(trained) == 4  # nothing is trained again
    assert command("data.workers=1").splitlines()[-4:] == lines and len(trained) == 4  # it would be the same run
    with pytest.raises(InputError, match=r"tiny_seed0 holds a run of other settings \(optim.lr 0.0005 -> 0.001\)"):
        command("optim.lr=1e-3")
    ran = tmp_path / "concat_seed1" / "ran.yaml"
    ran.write_text(ran.read_text().replace("threads: ", "threads: 9"))
    assert command().splitlines()[-1].startswith("note: the runs differ in threads: ")


def test_a_signal_is_handed_on_and_the_training_waited_for(tmp_path):
    training = (
        "import pathlib, signal, sys, time\n"
        f"def stop(*_):\n    time.sleep(0.5); pathlib.Path({str(tmp_path / 'saved')!r}).touch(); sys.exit(143)\n"
        f"signal.signal(signal.SIGTERM, stop); pathlib.Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(60)"
    )
    parent = (
        "import signal, sys\nfrom benchmarks.ablations import run_to_its_end\n"
        "before = signal.getsignal(signal.SIGTERM)\n"
        f"code = run_to_its_end([sys.executable, '-c', {training!r}])\n"
        "assert signal.getsignal(signal.SIGTERM) is before\nsys.exit(code)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert process.wait(30) == 143 and (tmp_path / "saved").exists()


def test_the_table_holds_mean_and_spread():
    rows = {"base": [{"lip_r": 0.5, "psnr": 30.0}, {"lip_r": 0.7, "psnr": 32.0}], "hr": [{"loss": 0.25}]}
    assert table(rows).splitlines() == [
        "| config | seeds | lip_r | psnr | loss |",
        "|---|---|---|---|---|",
        "| base | 2 | 0.600 ± 0.141 | 31.0 ± 1.4 | - |",
        "| hr | 1 | - | - | 0.250 |",
    ]


def test_plans_find_their_script_and_refuse_mistakes(tmp_path):
    runs = plan(
        [ABLATIONS / "mel.yaml", ABLATIONS / "hr_scale_1.yaml", ROOT / "configs" / "syncnet.yaml"],
        3,
        [5, 6],
        [],
        tmp_path,
    )
    assert [(run.script, run.seed, run.folder.name) for run in runs[::2]] == [
        ("train_base.py", 5, "mel_seed5"),
        ("train_hr.py", 5, "hr_scale_1_seed5"),
        ("train_syncnet.py", 5, "syncnet_seed5"),
    ]
    (patient,) = plan([ROOT / "configs" / "adapt_base.yaml"], 3, [0], ["run.minutes=1"], tmp_path)
    ends = yaml.safe_load(patient.resolved)["run"]
    assert (ends["patience"], ends["minutes"], ends["steps"]) == (0, None, 3)  # or it would never count as finished
    with pytest.raises(InputError, match="unknown key loss.sinc, did you mean loss.sync"):
        plan([ABLATIONS / "mel.yaml"], 3, [0], ["loss.sinc=1"], tmp_path)
    mistakes = ["loss.sinc=1", "loss.perceptive=1", "model.referenses=4", "audio_pretrain.batch=0"]
    with pytest.raises(InputError) as caught:
        plan([ABLATIONS / "mel.yaml"], 3, [0], mistakes, tmp_path)
    assert all(key.partition("=")[0] in str(caught.value) for key in mistakes)
    with pytest.raises(InputError, match=r"adapt.yaml has script: adapt.py, expected one of train_base.py"):
        plan([ROOT / "configs" / "adapt.yaml"], 3, [0], [], tmp_path)
    with pytest.raises(InputError, match="share a run folder"):
        plan([ABLATIONS / "mel.yaml", ROOT / "mel.yaml"], 3, [0], [], tmp_path)


def test_the_loader_says_what_it_gives(data_set):
    dataset = samples(BaseDataset, DataConfig(str(data_set), window=5, cache="disk"), AugmentConfig(), BaseConfig(), 0)
    line = bench_loader(dataset, 4, 1, seconds=0.4)
    assert int(line.split(" windows/s with 1 workers")[0]) > 0


def test_the_loader_s_benchmark_takes_either_stage(painted, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("benchmarks.speed.bench_loader", lambda dataset, *others: seen.append(type(dataset)))
    for name in ("tiny.yaml", "hr_tiny.yaml"):
        words = ["loader", "--config", str(ROOT / "configs" / name), "--set", f"data.path={painted}"]
        monkeypatch.setattr("sys.argv", words)
        loader_main()
    assert seen == [BaseDataset, HRDataset]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("path", "error: no folder {data}: expected a data set written by python -m preprocess.extract_clips"),
        ("split", "error: {data}: no clip is in split 'val', and none of its 1 train clips can lend its last tenth"),
        ("mel", "error: {data}: 1 of 1 clips cannot be read, the first: clip {clip} has no mel.npy; extract the clip"),
        ("features", "error: {data}: 1 of 1 clips cannot be read, the first: {clip}/whisper.npy is damaged"),
        ("index", "error: {data}/index.jsonl is damaged"),
        ("window", "error: {data}: no clip of split 'train' has data.window = 7 frames"),
    ],
)
def test_a_run_on_broken_data_ends_at_once_in_one_line(broken, message, short, tmp_path, monkeypatch, capsys):
    data, settings = tmp_path / "data", []
    if broken != "path":
        shutil.copytree(short, data)
        clip = load_clips(data, "train")[0].folder
        message = message.replace("{clip}", str(clip))
    if broken == "split":
        shutil.rmtree(load_clips(data, "val")[0].folder)
        merge_index(data)
    elif broken == "mel":
        (clip / "mel.npy").unlink()
    elif broken == "features":
        (clip / "whisper.npy").write_bytes((clip / "whisper.npy").read_bytes()[:5000])
    elif broken == "index":
        (data / "index.jsonl").write_text('{"id": "half')
    elif broken == "window":
        settings = ["--set", "data.window=7"]
    places = [f"--set=data.path={data}", f"--set=run.folder={tmp_path}"]
    code = run_here(monkeypatch, base_main, "--config", ROOT / "configs" / "tiny.yaml", *places, *settings)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and lines[-1].startswith(message.replace("{data}", str(data)))
    assert len([line for line in lines if line.startswith("error")]) == 1 and not list(
        tmp_path.glob("tiny/checkpoints/*")
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named_from_any_process(workers, short, tmp_path):
    data = shutil.copytree(short, tmp_path / "data")
    archive = load_clips(data, "train")[0].folder / "faces.zip"
    with zipfile.ZipFile(archive, "w") as damaged:
        for frame in range(6):
            damaged.writestr(f"{frame:06d}.jpg", b"no picture")
    config = load_config(
        TrainBaseConfig,
        ROOT / "configs" / "tiny.yaml",
        [f"data.path={data}", f"run.folder={tmp_path}", "data.cache=disk", f"data.workers={workers}"],
    )
    with pytest.raises(
        InputError, match=rf"^picture \d+ of {archive} is damaged; extract the clip again, with --again$"
    ):
        train_base(config)
