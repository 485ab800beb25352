"""Whether an action helped is kept with it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("monitors", "0009_settings")]

    operations = [
        migrations.AddField(
            model_name="action",
            name="verdict",
            field=models.CharField(
                blank=True,
                choices=[("helped", "Helped"), ("no change", "No change"), ("worse", "Worse")],
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="action",
            name="verdict_text",
            field=models.CharField(blank=True, max_length=300),
        ),
        migrations.AddField(
            model_name="action", name="judged_at", field=models.DateTimeField(null=True)
        ),
    ]
