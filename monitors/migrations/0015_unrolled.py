"""A snapshot that came too late is superseded; each place knows what hours and days lack."""

from datetime import timedelta

from django.db import migrations, models
from django.db.models import F

STATES = [
    ("ok", "Ok"),
    ("failed", "Failed"),
    ("denied", "Denied"),
    ("unsupported", "Unsupported"),
    ("timeout", "Timeout"),
    ("unreachable", "Unreachable"),
    ("superseded", "Superseded"),
]
SAMPLES_KEPT = timedelta(days=8)


def make_again(apps, schema_editor):
    """Have upkeep make hours and days again as far back as there are samples.

    Before, what was not summed up within ten minutes after its hour never was.
    """
    states = apps.get_model("monitors", "ProbeState").objects.exclude(taken_at=None)
    states.update(unrolled_at=F("taken_at") - SAMPLES_KEPT)


class Migration(migrations.Migration):

    dependencies = [("monitors", "0014_repack")]

    operations = [
        migrations.AddField("probestate", "ended_at", models.DateTimeField(null=True)),
        migrations.AddField("probestate", "unrolled_at", models.DateTimeField(null=True)),
        migrations.AlterField(
            "probestate", "state", models.CharField(blank=True, choices=STATES, max_length=12)
        ),
        migrations.AlterField("snapshot", "state", models.CharField(choices=STATES, max_length=12)),
        migrations.AlterField("probestate", "epoch", models.CharField(blank=True, max_length=120)),
        migrations.AlterField("target", "epoch", models.CharField(blank=True, max_length=120)),
        migrations.RunPython(make_again, migrations.RunPython.noop),
    ]
