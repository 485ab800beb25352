"""Every address of the site."""

from __future__ import annotations

from django.urls import include, path, register_converter
from django.urls.converters import IntConverter

from dashboard.pages import (
    PAGES,
    account,
    action,
    action_log,
    backend,
    batch,
    batches,
    find,
    findings,
    fleet,
    health,
    horizon,
    index,
    jobs,
    matrix,
    people,
    pools,
    query,
    roles,
    standing_rules,
    strip,
    stuck,
    stuck_definitions,
    table,
    targets,
    thresholds,
    vacuum_queue,
    vacuum_runs,
    what_if,
)


class IdConverter(IntConverter):
    """A number that PostgreSQL's bigint holds; a greater one names nothing, which is a 404."""

    def to_python(self, value: str) -> int:
        """Return the number; raises ValueError, by which no address matches."""
        number = int(value)
        if number >= 2**63:
            raise ValueError(value)
        return number


register_converter(IdConverter, "id")

OF_TARGET = [
    *(path(page.path, page.view, name=page.name) for page in PAGES),
    path("horizon/", horizon.horizon, name="horizon"),
    path("vacuum/queue/", vacuum_queue.vacuum_queue, name="vacuum-queue"),
    path("vacuum/runs/", vacuum_runs.vacuum_runs, name="vacuum-runs"),
    path("databases/<id:datid>/tables/<id:relid>/", table.table, name="table"),
    path(
        "databases/<id:datid>/tables/<id:relid>/what-if/",
        what_if.what_if,
        name="table-what-if",
    ),
    path("databases/<id:datid>/indexes/<id:indexrelid>/", index.index, name="index"),
    path("backends/<id:pid>-<id:start>/", backend.backend, name="backend"),
    path("queries/<id:query_id>/", query.query, name="query"),
    path("actions/<slug:action>/", action.new, name="action-new"),
    path("batches/", batches.batches, name="batches"),
    path("batches/<slug:action>/", batch.new, name="batch-new"),
    path("jobs/new/", jobs.new, name="job-new"),
    path("jobs/<slug:job>/", jobs.edit, name="job-edit"),
    path("jobs/<slug:job>/run/", jobs.run, name="job-run"),
    path("jobs/<slug:job>/switch/", jobs.switch, name="job-switch"),
    path("jobs/<slug:job>/remove/", jobs.remove, name="job-remove"),
    path("strip/", strip.strip, name="strip"),
    path("edit/", targets.edit, name="target-edit"),
    path("remove/", targets.remove, name="target-remove"),
    path("enable/", targets.enable, name="target-enable"),
    path("disable/", targets.disable, name="target-disable"),
]

urlpatterns = [
    path("", fleet.fleet, name="fleet"),
    path("targets/", targets.targets, name="targets"),
    path("targets/new/", targets.new, name="target-new"),
    path("targets/check/<uuid:check_id>/", targets.check, name="target-check"),
    path("targets/<slug:name>/", include(OF_TARGET)),
    path("actions/", action_log.actions, name="actions"),
    path("actions/<uuid:action_id>/", action.action, name="action"),
    path("actions/<uuid:action_id>/request/", action.request, name="action-request"),
    path("actions/<uuid:action_id>/stop/", action.stop, name="action-stop"),
    path("actions/<uuid:action_id>/approve/", action.approve, name="action-approve"),
    path("actions/<uuid:action_id>/undo/", action.undo, name="action-undo"),
    path("batches/<uuid:batch_id>/", batch.batch, name="batch"),
    path("batches/<uuid:batch_id>/request/", batch.request, name="batch-request"),
    path("batches/<uuid:batch_id>/stop/", batch.stop, name="batch-stop"),
    path("findings/", findings.findings, name="findings"),
    path("findings/<id:finding_id>/", findings.finding, name="finding"),
    path("findings/<id:finding_id>/acknowledge/", findings.acknowledge, name="finding-acknowledge"),
    path("findings/<id:finding_id>/snooze/", findings.snooze, name="finding-snooze"),
    path("findings/<id:finding_id>/reopen/", findings.reopen, name="finding-reopen"),
    path("stuck/", stuck.stuck, name="stuck"),
    path("stuck/rules/", standing_rules.rules, name="standing-rules"),
    path("stuck/rules/new/", standing_rules.new, name="standing-rule-new"),
    path("stuck/firings/", standing_rules.firings, name="standing-rule-firings"),
    path("stuck/stop/", standing_rules.stop, name="standing-rules-stop"),
    path("stuck/rules/<slug:rule>/", standing_rules.edit, name="standing-rule-edit"),
    path("stuck/rules/<slug:rule>/switch/", standing_rules.switch, name="standing-rule-switch"),
    path("stuck/rules/<slug:rule>/remove/", standing_rules.remove, name="standing-rule-remove"),
    path("stuck/definitions/", stuck_definitions.definitions, name="stuck-definitions"),
    path(
        "stuck/definitions/<id:definition_id>/remove/",
        stuck_definitions.remove,
        name="stuck-definition-remove",
    ),
    path("thresholds/", thresholds.thresholds, name="thresholds"),
    path("pools/", pools.calculator, name="pool-calculator"),
    path("find/", find.find, name="find"),
    path("people/", people.people, name="people"),
    path("people/grants/", people.give, name="grant-give"),
    path("people/grants/<id:grant_id>/take/", people.take, name="grant-take"),
    path("people/roles/", roles.roles, name="roles"),
    path("people/roles/new/", roles.new, name="role-new"),
    path("people/roles/<slug:role>/", roles.edit, name="role-edit"),
    path("people/roles/<slug:role>/remove/", roles.remove, name="role-remove"),
    path("people/matrix/", matrix.matrix, name="matrix"),
    path("people/<id:person_id>/", people.person, name="person"),
    path("people/<id:person_id>/password/", people.password, name="person-password"),
    path("people/<id:person_id>/deactivate/", people.deactivate, name="person-deactivate"),
    path("people/<id:person_id>/activate/", people.activate, name="person-activate"),
    path("people/<id:person_id>/join/", people.join, name="person-join"),
    path("people/<id:person_id>/leave/<id:group_id>/", people.leave, name="person-leave"),
    path("login/", account.Login.as_view(), name="login"),
    path("logout/", account.Logout.as_view(), name="logout"),
    path("account/", account.account, name="account"),
    path("account/theme/", account.theme, name="account-theme"),
    path("healthz/live", health.live, name="healthz-live"),
    path("healthz/ready", health.ready, name="healthz-ready"),
]

handler400 = "dashboard.errors.bad_request"
handler500 = "dashboard.errors.server_error"
