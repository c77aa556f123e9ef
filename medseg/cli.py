"""The command: reads arguments and calls one job.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

import inspect
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from medseg import __version__
from medseg.errors import MedsegError
from medseg.geometry import Length
from medseg.signals import Stop, stoppable
from medseg.tracking.store import prepare_environment

if TYPE_CHECKING:
    from medseg.jobs.questions import Question
    from medseg.jobs.setup import Setup

app = typer.Typer(
    name="medseg",
    help="Segment cells and organs, and know how good the borders are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder in which the card's root is looked for."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow store; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Network = Annotated[
    str | None,
    typer.Option(help="The job's network; default: that which learnt best.", show_default=False),
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0, help="GB of the GPU, 0 for none; default: this machine's.", show_default=False
    ),
]
METRIC_HELP = (
    'Repeatable: dice, "nsd:tolerance=2 mm", v_rand:structure=membrane; default: dice iou hd95 '
    "assd, or AP, PQ, splits, merges and ASSD where labels are objects."
)
ModelArgument = Annotated[
    str, typer.Argument(help="A model or run folder, an MLflow run id, or models:/NAME@ALIAS.")
]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(f"medseg {__version__}")
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")] = Path("medseg-demo"),
    organs: Annotated[bool, typer.Option("--organs", help="3D organs, not 2D cells.")] = False,
    minutes: Annotated[float, typer.Option(help="Time for training.")] = 2.0,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make a small data set, then check, train, evaluate, register and predict."""
    from medseg.jobs.demo import demo as job

    job(folder, organs=organs, minutes=minutes, tracking_uri=tracking_uri, console=_console())


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="A folder of images and labels.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; default: the folder's.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Names of the channels: DAPI,GFP.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What label values mean: background=0,vessel=255[,ignore=128]; where labels "
            "number objects, what these are: nucleus.",
            show_default=False,
        ),
    ] = None,
    pixel_size: Annotated[
        str | None,
        typer.Option(help='For files that carry none: "0.5 um,0.5 um", x,y[,z]; or unknown.'),
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Of files that leave them open: ZYX, CYX, CZYX.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="semantic (classes) or instance (a number an object).")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Pattern whose bracket is the group, 'patient(\\d+)'; with /2, pairs of "
            "consecutive numbers; or none.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Where several fit: paired_folders:labels=drawn_by_ann.")
    ] = None,
    network: Network = None,
    memory: Memory = None,
    out: Annotated[Path, typer.Option(help="Folder of the card and the job.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Take what is proposed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a dataset card and a job for a folder of images, asking what no file says."""
    from medseg.jobs.new import new as job
    from medseg.jobs.questions import Answers, Interview

    answers = Answers(name, layout, kind, channels, labels, pixel_size, axes, groups, yes)
    result = job(
        folder,
        Interview(answers, _ask if sys.stdin.isatty() and not as_json else None),
        out=out,
        network=network,
        memory_gb=memory,
        console=_console(),
    )
    _print(result.as_json) if as_json else result.show(Console())


@app.command()
def plan(
    card: Annotated[Path, typer.Argument(help="A dataset card.")],
    network: Network = None,
    memory: Memory = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The job file; default: NAME_job.yaml beside the card."),
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Write a job for a data set, with the reason of every choice."""
    from medseg.jobs.plan import plan as job

    result = job(
        card,
        job_file=out,
        network=network,
        memory_gb=memory,
        data_root=data_root,
        console=_console(),
    )
    _print(result.as_json) if as_json else result.show(Console())


@app.command()
def check(
    card: Annotated[Path, typer.Argument(help="A dataset card.")],
    job_file: Annotated[
        Path | None,
        typer.Option("--job", help="A job on this card: foretell its memory and time."),
    ] = None,
    data_root: DataRoot = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML file with pictures; default: check.html, and none with --json.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Cases read at a time; default: one a processor, at most 8.", min=1),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Read every case of a data set and say what is wrong with it."""
    from medseg.jobs.check import check as job
    from medseg.jobs.show import show_check

    if report is None and not as_json:
        report = Path("check.html")
    result = job(
        card,
        job_file=job_file,
        data_root=data_root,
        report=report,
        workers=workers,
        device=_one_of("--device", device, ("auto", "cpu", "gpu")),
        console=_console(),
    )
    _print(result.as_json) if as_json else show_check(result, Console())
    if result.errors:
        raise typer.Exit(1)


def _setup(
    job_file: Annotated[Path, typer.Argument(metavar="JOB", help="A job file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides, e.g. train.epochs=3.", metavar="KEY=VALUE"),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Train and validate for this long, e.g. 20m; the epochs are ignored."),
    ] = None,
    budget_clock: Annotated[
        str,
        typer.Option(help="wall time, or cpu time of this process: fair on a busy machine."),
    ] = "wall",
    data_root: DataRoot = None,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that prepare patches.")] = 0,
    cache: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Part of the free memory for prepared cases; others stay on disk."
        ),
    ] = 0.5,
    checkpoint_every: Annotated[
        str, typer.Option(help="Time between checkpoints, from which a stopped run goes on.")
    ] = "5m",
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Begin with another model's weights: a model or run folder, models:/NAME/VERSION.",
            show_default=False,
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    experiment: Annotated[
        str | None, typer.Option(help="MLflow experiment; default: the data set's name.")
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(
            help="Name of the registered model; default: the data set's name; '' for none."
        ),
    ] = None,
    *,
    stop: Stop,
) -> "Setup":
    if time_budget is None and budget_clock != "wall":
        raise typer.BadParameter("it counts a --time-budget", param_hint="--budget-clock")
    from medseg.jobs.setup import read_setup

    return read_setup(
        job_file,
        settings=settings or [],
        data_root=data_root,
        runs=runs,
        time_budget=None if time_budget is None else parse_duration(time_budget),
        clock=_one_of("--budget-clock", budget_clock, ("wall", "cpu")),
        device=_one_of("--device", device, ("auto", "cpu", "gpu")),
        precision=_one_of("--precision", precision, ("auto", "fp32", "bf16", "fp16")),
        workers=workers,
        cache=cache,
        checkpoint_every=parse_duration(checkpoint_every, "--checkpoint-every"),
        start_from=start_from,
        tracking_uri=tracking_uri,
        experiment=experiment,
        register_as=register,
        console=_console(),
        stop=stop,
    )


def _training(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments and options of a training, and hand it what they set up."""
    shared = dict(inspect.signature(_setup).parameters)
    del shared["stop"]
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "setup"]

    def run(**given: Any) -> None:
        with stoppable() as stop:
            setup = _setup(**{name: given.pop(name) for name in shared}, stop=stop)
            command(setup, **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    signature = inspect.Signature([*shared.values(), *own])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return run


@app.command()
@_training
def train(
    setup: "Setup",
    extend: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run of this job, which goes on with more train.epochs or a longer "
            "--time-budget.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a job, judge it on the test cases, and register the model.

    The same command goes on with a run that was stopped. SIGTERM, SIGUSR1 and SIGHUP save a
    checkpoint and end with exit code 75.
    """
    from medseg.jobs.show import show_trained
    from medseg.jobs.train import train as job

    result = job(setup, extend=extend)
    _print(result.as_json) if as_json else show_trained(result, Console())


@app.command()
@_training
def crossval(
    setup: "Setup",
    folds: Annotated[
        int, typer.Option(min=2, help="Folds; as many as groups if there are fewer.")
    ] = 5,
    only: Annotated[
        int | None,
        typer.Option(help="Train this fold only, e.g. 2; default: all that are missing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a job once a fold, by group, and judge each case by the model that never saw it."""
    from medseg.jobs.crossval import crossval as job
    from medseg.jobs.show import show_crossval

    result = job(setup, folds=folds, only=only)
    _print(result.as_json) if as_json else show_crossval(result, Console())


@app.command()
@_training
def learning_curve(
    setup: "Setup",
    fractions: Annotated[
        str, typer.Option(help="Shares of the training groups, each within the next.")
    ] = "0.1,0.25,0.5,1",
    as_json: AsJson = False,
) -> None:
    """Train a job on more and more of its labels, and say whether more of them would help."""
    from medseg.jobs.learning_curve import learn as job
    from medseg.jobs.show import show_learned

    result = job(setup, fractions=parse_fractions(fractions))
    _print(result.as_json) if as_json else show_learned(result, Console())


@app.command()
def predict(
    model: ModelArgument,
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, folders of images, DICOM series folders.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the label maps.")],
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="Average mirrored views.", show_default=False),
    ] = None,
    no_crf: Annotated[bool, typer.Option("--no-crf", help="Leave out the model's CRF.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Write class probabilities, too.")] = False,
    write: Annotated[
        str, typer.Option(help="Write these, too: table,rois,geojson.", show_default=False)
    ] = "",
    zarr_labels: Annotated[
        str,
        typer.Option(help="Write labels of this name into each OME-Zarr, too.", show_default=False),
    ] = "",
    pixel_size: Annotated[
        str | None,
        typer.Option(help='For images that carry none, x,y[,z]: "0.25 um,0.25 um".'),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first broken image.")] = False,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Label images with a model, each on its own grid."""
    from medseg.jobs.predict import predict as job
    from medseg.jobs.show import show_predicted

    result = job(
        model,
        inputs,
        output,
        tracking_uri=tracking_uri,
        pixel_size=parse_lengths(pixel_size) if pixel_size else (),
        mirror=mirror,
        crf=not no_crf,
        probabilities=probabilities,
        zarr_labels=zarr_labels,
        write=[name.strip() for name in write.split(",") if name.strip()],
        strict=strict,
        device=_one_of("--device", device, ("auto", "cpu", "gpu")),
        precision=_one_of("--precision", precision, ("fp32", "bf16", "fp16")),
        console=_console(),
    )
    _print(result.as_json) if as_json else show_predicted(result, output, Console())
    if result.failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    predictions: Annotated[
        str, typer.Argument(help="A folder of label images, or a model (as in predict).")
    ],
    card: Annotated[Path, typer.Option(help="Dataset card with the ground truth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help=METRIC_HELP),
    ] = None,
    trimap: Annotated[
        str | None,
        typer.Option(
            help='Widths of the bands around the border: "1 um,2 um"; default: 1 to 16 voxels.',
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        str | None, typer.Option(help="Names of the cases, separated by commas; default: all.")
    ] = None,
    file_name: Annotated[
        str, typer.Option(help="Name of a prediction; {case} stands for the case.")
    ] = "{case}",
    data_root: DataRoot = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Hold predictions against the ground truth and write the report."""
    from medseg.jobs.evaluate import evaluate as job
    from medseg.jobs.show import show_evaluated

    result = job(
        predictions,
        card,
        output,
        metrics=metric or [],
        bands=parse_lengths(trimap, "--trimap") if trimap else (),
        cases=[name.strip() for name in cases.split(",")] if cases else [],
        file_name=file_name,
        data_root=data_root,
        tracking_uri=tracking_uri,
        device=_one_of("--device", device, ("auto", "cpu", "gpu")),
        console=_console(),
    )
    _print(result.as_json) if as_json else show_evaluated(result, Console())


@app.command()
def compare(
    predictions: Annotated[
        list[str],
        typer.Argument(
            help="Two or more evaluation or run folders; with --card also folders of label images "
            "and models."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    card: Annotated[
        Path | None,
        typer.Option(help="Dataset card: judges what is not evaluated yet, and shows the cases."),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help=METRIC_HELP)] = None,
    cases: Annotated[
        str | None, typer.Option(help="Names of the cases, separated by commas; default: all.")
    ] = None,
    file_name: Annotated[
        str, typer.Option(help="Name of a prediction; {case} stands for the case.")
    ] = "{case}",
    data_root: DataRoot = None,
    device: Device = "auto",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Say whether one model is better than another on the same cases."""
    from medseg.jobs.compare import compare as job
    from medseg.jobs.show import show_compared

    result = job(
        predictions,
        output,
        card_file=card,
        metrics=metric or [],
        cases=[name.strip() for name in cases.split(",")] if cases else [],
        file_name=file_name,
        data_root=data_root,
        tracking_uri=tracking_uri,
        device=_one_of("--device", device, ("auto", "cpu", "gpu")),
        console=_console(),
    )
    _print(result.as_json) if as_json else show_compared(result, Console())


@app.command()
def promote(
    run: Annotated[
        str, typer.Argument(help="A run folder, an MLflow run id, or models:/NAME/VERSION.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Registered model, where the run is in several.")
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias that people load.")] = "champion",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Make a registered version the champion; the one before becomes rollback."""
    from medseg.jobs.promote import promote as job
    from medseg.jobs.show import show_promoted

    result = job(run, name=name, alias=alias, tracking_uri=tracking_uri)
    _print(result.as_json) if as_json else show_promoted(result, Console())


@app.command()
def networks(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which networks; default: all.", show_default=False)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Measure time and memory on images of this size in voxels, x,y[,z]: 256,256.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the image.")] = 1,
    classes: Annotated[int, typer.Option(min=2, help="Classes, background included.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="With --size: images of a step.")] = 1,
    preset: Annotated[str, typer.Option(help="With --size: default or small.")] = "default",
    backends: Annotated[
        bool, typer.Option("--backends", help="List what can compute MS-D here, and why not.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the networks, their sizes, and what they cost."""
    from medseg.jobs.costs import Costs, costs
    from medseg.jobs.networks import Networks
    from medseg.jobs.networks import networks as job

    result: Networks | Costs
    if backends and size:
        raise typer.BadParameter("--backends and --size are two questions", param_hint="--size")
    if size is None and (batch != 1 or preset != "default"):
        hint = "--preset" if batch == 1 else "--batch"
        raise typer.BadParameter("it is measured with --size only", param_hint=hint)
    if size:
        result = costs(
            names or [],
            size=parse_size(size),
            channels=channels,
            classes=classes,
            batch=batch,
            preset=_one_of("--preset", preset, ("default", "small")),
            console=_console(),
        )
    else:
        result = job(names or [], backends=backends, channels=channels, classes=classes)
    _print(result.as_json) if as_json else result.show(Console())


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Return seconds of ``90s``, ``20m``, ``1h30m`` or ``1.5h``.

    Raises:
        BadParameter: The text is none of these, or no time at all.
    """
    number = r"(\d+(?:\.\d+)?)"
    parts = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip())
    found = parts.groups() if parts else ()
    seconds = sum(float(n or 0) * unit for n, unit in zip(found, (3600, 60, 1), strict=False))
    if not seconds:
        raise typer.BadParameter(f"{text}: write 90s, 20m or 1h30m", param_hint=option)
    return seconds


def parse_lengths(text: str, option: str = "--pixel-size") -> list[Length]:
    """Return the lengths of ``"0.25 um,0.25 um"``.

    Raises:
        BadParameter: One of them is no length.
    """
    try:
        return [Length.parse(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return the numbers of ``0.1,0.5,1``.

    Raises:
        BadParameter: One of them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text}: write 0.1,0.5,1", param_hint="--fractions") from None


def parse_size(text: str) -> list[int]:
    """Return the voxels of ``256,256`` or ``64,64,32``.

    Raises:
        BadParameter: It is not two or three numbers, each 1 or more.
    """
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){1,2}", text):
        raise typer.BadParameter(f"{text}: write 256,256 or 64,64,32", param_hint="--size")
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Run the command; a mistake of the user is one message and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare_environment()
    try:
        app()
    except MedsegError as error:
        _fail(str(error))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        _fail(f"{error.filename}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"error: {message}", style="red", markup=False, highlight=False)
    sys.exit(1)


def _console() -> Console:
    return Console(stderr=True)


def _ask(question: "Question") -> str:
    text = f"{question.text}\n  e.g. {question.example}"
    answered: str = typer.prompt(text, default=question.proposal, err=True)
    return answered


def _print(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, indent=2))


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise typer.BadParameter(f"{value}: is none of {', '.join(known)}", param_hint=option)
    return value
