from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from monitors.history.operations import GiveToApp


class Migration(migrations.Migration):

    dependencies = [
        ('monitors', '0008_vacuum_runs'),
    ]

    operations = [
        migrations.AlterField(
            model_name='mark',
            name='kind',
            field=models.CharField(choices=[('restart', 'Restart'), ('crash', 'crash restart'), ('reset', 'statistics reset'), ('promotion', 'Promotion'), ('upgrade', 'Upgrade'), ('rewrite', 'Rewrite'), ('setting', 'settings changed')], max_length=10),
        ),
        migrations.CreateModel(
            name='SettingChange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('before_at', models.DateTimeField()),
                ('name', models.CharField(max_length=100)),
                ('before', models.JSONField(null=True)),
                ('after', models.JSONField(null=True)),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to='monitors.target')),
            ],
            options={
                'indexes': [models.Index(fields=['target', '-at'], name='setting_change_of_target')],
            },
        ),
        GiveToApp(),
    ]
