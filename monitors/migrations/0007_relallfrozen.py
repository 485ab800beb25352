"""The share of frozen pages gets a history: insert thresholds of 18 depend on it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("monitors", "0006_findings")]

    operations = [
        migrations.AddField(model_name=model, name=name, field=models.BigIntegerField(null=True))
        for model, name in (
            ("tablessample", "relallfrozen"),
            ("tableshour", "relallfrozen"),
            ("tableshour", "relallfrozen_max"),
            ("tablesday", "relallfrozen"),
            ("tablesday", "relallfrozen_max"),
        )
    ]
