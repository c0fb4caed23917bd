"""Checks of boxes against ground truth: of the policy before hours are spent on training, and of a trained rough network."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from stseg3d.inference.propose import NetworkProposer
from stseg3d.ops import Proposal, box_coverage
from stseg3d.training.folds import with_ids
from stseg3d.training.stages import trained_stage
from stseg3d.training.task import TrainingTask, load_stage
from stseg3d.volumes import Case, OpenCase

logger = logging.getLogger(__name__)

CASES = 20  # looked at, spread over the list: more would say little more
USELESS, DOUBTFUL = 0.5, 0.95  # shares of the labelled voxels in boxes


@dataclass
class BoxCheck:
    """Labelled voxels that boxes hold.

    Attributes:
        labelled: Labelled voxels.
        inside: Those in a box.
        dropped: Number of objects without a box, by the rule that excluded them.
        cases: Cases that were looked at.
    """

    labelled: int = 0
    inside: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    cases: int = 0

    @property
    def coverage(self) -> float:
        """Share of the labelled voxels in boxes; 1 if nothing is labelled."""
        return self.inside / self.labelled if self.labelled else 1.0

    def add(self, case: OpenCase, proposal: Proposal) -> None:
        """Count a case."""
        labelled = int((case.label > 0).sum())
        self.labelled += labelled
        self.inside += labelled * box_coverage(case.label, [b.box for b in proposal.boxes])
        self.dropped.update(dropped.why for dropped in proposal.dropped)
        self.cases += 1

    def sentence(self, whose: str) -> str:
        """What the boxes hold, and why not more."""
        rules = "; ".join(f"{count} {'object is' if count == 1 else 'objects are'} {why}" for why, count in self.dropped.most_common(3))
        return f"{whose} hold {self.coverage:.0%} of the labelled voxels in {self.cases} case{'s' * (self.cases != 1)}" + (
            f": {rules}" if rules else ""
        )


def check_policy(task: TrainingTask) -> None:
    """Refuse a box policy that keeps most of the training cases' true objects out of all boxes, and warn of one that loses some.

    Raises:
        ValueError: If less than half of the labelled voxels are in boxes.
    """
    if task.plan.rough is None or task.plan.training.crops == "patches":
        return
    parser = task.parser()
    boxes = parser.get_parsed_content("fine_boxes")
    found = _checked(task, task.dataset.training, lambda case: boxes({"case": case})["proposal"])
    text = found.sentence(f"{task.bundle}: boxes that the policy makes of the labels themselves")
    if found.coverage < USELESS:
        msg = f"{text}; the policy must keep the objects, see policy in configs/plan.json"
        raise ValueError(msg)
    if found.coverage < DOUBTFUL:
        logger.warning("%s", text)


def check_rough(task: TrainingTask) -> None:
    """Warn of a trained rough network whose boxes miss objects of the validation cases: no fine network can find those."""
    path = trained_stage(task.bundle, "rough")
    if path is None or task.plan.rough is None:
        return
    parser = task.parser()
    network = load_stage(task, "rough", path).to(parser.get_parsed_content("device"))
    stage, size = parser.get_parsed_content("rough_stage"), task.plan.fine.size
    proposer = NetworkProposer(network, stage, parser.get_parsed_content("policy"), size)
    found = _checked(task, task.dataset.validation, lambda case: proposer.propose(case.image))
    text = found.sentence(f"{task.bundle}: boxes of the trained rough network")
    if found.coverage < USELESS:
        logger.warning("%s; THE FINE NETWORK CANNOT FIND WHAT IS OUTSIDE: train the rough stage longer, or plan a finer rough input", text)
    elif found.coverage < DOUBTFUL:
        logger.warning("%s", text)


def _checked(task: TrainingTask, cases: Sequence[Case], propose: Callable[[OpenCase], Proposal]) -> BoxCheck:
    open_case = task.parser().get_parsed_content("open_case")
    found = BoxCheck()
    for entry in with_ids(_spread(cases)):
        case = open_case(entry)["case"]
        found.add(case, propose(case))
    return found


def _spread(cases: Sequence[Case]) -> Iterable[Case]:
    """At most :data:`CASES` of the cases, evenly over the list."""
    count = min(CASES, len(cases))
    return (cases[n * len(cases) // count] for n in range(count))
