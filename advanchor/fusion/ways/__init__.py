"""The ways of fusing: a file each, with

NEEDS                    which of a task's files it reads, the first that is there
Settings                 its own settings
problem(method)          why it cannot fuse what was erased with these settings of a method; empty if it can
contribution(...)        what a member adds to the totals: tensors by name, which add up over members
weight(member)           how many times a member's contribution counts in the totals
solve(...) -> Part       what the totals of its members amount to; what takes long is kept and told in the workshop
repair(member)           how a member that fell short is mended: "retrain" its delta from the fused one, or
                         "strengthen" it by its scale; FusionError says why neither can be done
"""

from types import ModuleType
from typing import Annotated

from pydantic import AfterValidator, Field

from advanchor.concepts import KindName
from advanchor.fusion.member import Member
from advanchor.fusion.ways import anchor_edit, closed_form, distill, distill_neurons, neurons, task_arithmetic
from advanchor.messages import choice

WAYS: dict[str, ModuleType] = {
    "closed_form": closed_form,
    "anchor_edit": anchor_edit,
    "task_arithmetic": task_arithmetic,
    "neurons": neurons,
    "distill": distill,
    "distill+neurons": distill_neurons,
}
AUTO = "auto"  # chosen for each kind by fusion/choice.py


def known(name: str) -> str:
    if name not in WAYS and name != AUTO:
        raise ValueError(choice(name, (AUTO, *WAYS)))
    return name


WayName = Annotated[str, AfterValidator(known)]


class FusionSettings(
    closed_form.Settings, anchor_edit.Settings, task_arithmetic.Settings, neurons.Settings, distill.Settings
):
    """How erasures become one: which way, and the settings of all of them."""

    method: WayName = Field(
        default=AUTO,
        description="auto; from the deltas; from the anchors; the sum of the deltas; anchors as neurons of the text "
        "encoder; one student of all of them; that and neurons",
    )
    method_by_kind: dict[KindName, WayName] = Field(
        default={}, description="another method for concepts of a kind: what they amount to is added up"
    )

    def way_for(self, kind: str) -> str:
        """The name of the way of fusing for concepts of a kind."""
        return self.method_by_kind.get(kind, self.method)  # type: ignore[call-overload]

    def way_of(self, member: Member) -> str:
        return self.way_for(member.concept.kind)
