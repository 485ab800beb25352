"""Our own tables, a file a subject; who uses them imports them from here."""

from __future__ import annotations

from monitors.models.action import Action, Batch
from monitors.models.audit import AuditEntry
from monitors.models.finding import FindingRecord, FindingVersion
from monitors.models.history import HISTORY
from monitors.models.job import Job, JobRun
from monitors.models.person import BUILT_IN_ROLES, Grant, Role
from monitors.models.reading import (
    Coverage,
    Lease,
    Mark,
    ProbeState,
    Relabelled,
    SettingChange,
    Snapshot,
    VacuumRun,
    WorkerBeat,
)
from monitors.models.stuck import StandingRule, StandingRuleFiring, StuckDefinition
from monitors.models.target import (
    RESERVED_NAMES,
    TARGET_NAME,
    Database,
    Environment,
    Fleet,
    Target,
    TargetCheck,
    TargetFacts,
    TargetSecret,
    validate_name,
)

__all__ = [
    "BUILT_IN_ROLES",
    "HISTORY",
    "RESERVED_NAMES",
    "TARGET_NAME",
    "Action",
    "AuditEntry",
    "Batch",
    "Coverage",
    "Database",
    "Environment",
    "FindingRecord",
    "FindingVersion",
    "Fleet",
    "Grant",
    "Job",
    "JobRun",
    "Lease",
    "Mark",
    "ProbeState",
    "Relabelled",
    "Role",
    "SettingChange",
    "Snapshot",
    "StandingRule",
    "StandingRuleFiring",
    "StuckDefinition",
    "Target",
    "TargetCheck",
    "TargetFacts",
    "TargetSecret",
    "VacuumRun",
    "WorkerBeat",
    "validate_name",
]
