"""Every address of the site."""

from __future__ import annotations

from django.urls import include, path

from dashboard.pages import (
    account,
    action,
    action_log,
    activity,
    find,
    fleet,
    health,
    overview,
    people,
    queries,
    query,
    strip,
    table,
    targets,
    vacuum,
    vacuum_queue,
    vacuum_runs,
)

OF_TARGET = [
    path("", overview.overview, name="overview"),
    path("activity/", activity.activity, name="activity"),
    path("vacuum/", vacuum.vacuum, name="vacuum"),
    path("vacuum/queue/", vacuum_queue.vacuum_queue, name="vacuum-queue"),
    path("vacuum/runs/", vacuum_runs.vacuum_runs, name="vacuum-runs"),
    path("databases/<int:datid>/tables/<int:relid>/", table.table, name="table"),
    path("queries/", queries.queries, name="queries"),
    path("queries/<int:query_id>/", query.query, name="query"),
    path("actions/", action_log.target_actions, name="target-actions"),
    path("actions/<slug:action>/", action.new, name="action-new"),
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
    path("find/", find.find, name="find"),
    path("people/", people.people, name="people"),
    path("people/grants/", people.give, name="grant-give"),
    path("people/grants/<int:grant_id>/take/", people.take, name="grant-take"),
    path("people/<int:person_id>/", people.person, name="person"),
    path("people/<int:person_id>/password/", people.password, name="person-password"),
    path("people/<int:person_id>/deactivate/", people.deactivate, name="person-deactivate"),
    path("people/<int:person_id>/activate/", people.activate, name="person-activate"),
    path("people/<int:person_id>/join/", people.join, name="person-join"),
    path("people/<int:person_id>/leave/<int:group_id>/", people.leave, name="person-leave"),
    path("login/", account.Login.as_view(), name="login"),
    path("logout/", account.Logout.as_view(), name="logout"),
    path("account/", account.account, name="account"),
    path("account/theme/", account.theme, name="account-theme"),
    path("healthz/live", health.live, name="healthz-live"),
    path("healthz/ready", health.ready, name="healthz-ready"),
]

handler500 = "dashboard.errors.server_error"
