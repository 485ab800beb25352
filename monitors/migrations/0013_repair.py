from django.db import migrations

# 0002 was edited three times after histories had been made by it, 0004 once: this gives those
# what they lack, and takes what nothing reads any more. Everywhere else it changes nothing.
# An hour without `spanned_seconds` counts as before it: what its differences took is what it covers.
REPAIR = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'monitors_coverage'::regclass
                    AND attname = 'spanned_seconds' AND NOT attisdropped) THEN
    ALTER TABLE monitors_coverage ADD COLUMN spanned_seconds double precision NOT NULL DEFAULT 0;
    ALTER TABLE monitors_coverage ALTER COLUMN spanned_seconds DROP DEFAULT;
    UPDATE monitors_coverage SET spanned_seconds = covered_seconds;
  END IF;
END
$$;
ALTER TABLE monitors_target ADD COLUMN IF NOT EXISTS watching_pct double precision;
ALTER TABLE monitors_bloat_latest DROP COLUMN IF EXISTS mostly_live;
"""

STATEMENTS = """
ALTER TABLE monitors_statements_{part}
  DROP COLUMN IF EXISTS plans,
  DROP COLUMN IF EXISTS total_plan_time,
  DROP COLUMN IF EXISTS shared_blks_written,
  DROP COLUMN IF EXISTS blk_write_time;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('monitors', '0012_hurts'),
    ]

    operations = [
        migrations.RunSQL(REPAIR, migrations.RunSQL.noop),
        *(
            migrations.RunSQL(STATEMENTS.format(part=part), migrations.RunSQL.noop)
            for part in ('sample', 'latest', 'hour', 'day')
        ),
    ]
