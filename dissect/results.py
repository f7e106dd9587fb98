"""load(): any kept result, opened from its folder."""

from __future__ import annotations

from pathlib import Path

from ..hooks.errors import UsageError
from .artifacts.result import Suspects
from .candidates.result import Fitness
from .checkerboard.result import Checkup
from .diversity.result import Diversity
from .interventions.result import Effects
from .interventions.scan import SCAN, Scan
from .latents.result import Explored
from .repairs.result import Repair
from .runs.dissection import Dissection
from .seams.result import SeamCheck
from .storage.result import Result
from .watching.result import Watched

RUN = "run.json"
KINDS: dict[str, type[Result]] = {
    kind.DESCRIPTION: kind
    for kind in (Effects, Suspects, Repair, Checkup, Diversity, Fitness, SeamCheck, Explored, Watched)
}


def load(folder: str | Path) -> Dissection | Scan | Result:
    """Open a result from its folder: a run, an ablation, a checkup, an audit, a repair, a watch, …

    The description file in the folder tells what it is: `run.json` a `Dissection`, `effect.json` an `Effects`,
    `checkup.json` a `Checkup`, and so on. The folder of a scan holds one table for each scanned class: where there are
    several, give the file of a class, such as `…/scan-layer7/tree.json`.

    Raises:
        UsageError: there is no such folder, it holds no result, or one that is not finished.
        DissectError: a file of the result is missing or damaged.
    """
    folder = Path(folder)
    if folder.suffix == ".json" and folder.with_name(SCAN).is_file() and folder.name != SCAN:
        return Scan.load(folder)
    if (folder / RUN).is_file():
        return Dissection.load(folder)
    for description, kind in KINDS.items():
        if (folder / description).is_file():
            return kind.load(folder)
    if (folder / SCAN).is_file():
        return Scan.load(_only_class(folder))
    inside = sorted({path.parent for name in (RUN, *KINDS) for path in folder.glob(f"*/{name}")})
    hint = f" Results lie in {', '.join(map(str, inside[:8]))}." if inside else ""
    state = "holds no result" if folder.is_dir() else "is no folder"
    raise UsageError(f"{folder} {state}: a result has one of {', '.join((RUN, *KINDS, SCAN))}.{hint}")


def _only_class(folder: Path) -> Path:
    """The description of the only class of a scan."""
    classes = sorted(path for path in folder.glob("*.json") if path.name != SCAN)
    if len(classes) != 1:
        names = ", ".join(str(path) for path in classes[:8]) or "none yet; run dissect.scan on the run"
        raise UsageError(f"{folder} holds a scan with tables for {len(classes)} classes; load one of them: {names}.")
    return classes[0]
