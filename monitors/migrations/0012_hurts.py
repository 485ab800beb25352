"""A finding says what happens when it hurts, or why that has no date."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("monitors", "0011_jobs")]

    operations = [
        migrations.AddField(
            model_name="findingrecord",
            name="hurts_already",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="findingrecord",
            name="hurts",
            field=models.TextField(blank=True, default=""),
            preserve_default=False,
        ),
    ]
