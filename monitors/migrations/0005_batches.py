import uuid

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from monitors.history.operations import GiveToApp


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('monitors', '0004_bloat'),
    ]

    operations = [
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=40)),
                ('target_name', models.CharField(max_length=63)),
                ('options', models.JSONField(default=dict)),
                ('due', models.BooleanField(default=False)),
                ('asked_by_name', models.CharField(max_length=150)),
                ('asked_from', models.CharField(blank=True, max_length=60)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('at_once', models.SmallIntegerField(default=1)),
                ('stop_asked_by', models.CharField(blank=True, max_length=150)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('asked_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('asked_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('target', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, to='monitors.target')),
            ],
            options={
                'ordering': ['-created_at'],
            },
        ),
        migrations.AddField(
            model_name='action',
            name='batch',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='actions', to='monitors.batch'),
        ),
        migrations.AddField(
            model_name='action',
            name='batch_position',
            field=models.PositiveSmallIntegerField(null=True),
        ),
        GiveToApp(),
    ]
