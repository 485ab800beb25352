"""What the history server itself refuses: changing, deleting or emptying the audit.

A migration runs `FORWARD` and, backwards, `REVERSE`. `ENABLE ALWAYS` keeps the
triggers in force for a session in replica mode too.
"""

from __future__ import annotations

FORWARD = """
CREATE FUNCTION monitors_audit_is_final() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is only ever added to: % refused', TG_OP
    USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_unchanged
  BEFORE UPDATE OR DELETE ON monitors_auditentry
  FOR EACH STATEMENT EXECUTE FUNCTION monitors_audit_is_final();
CREATE TRIGGER audit_not_emptied
  BEFORE TRUNCATE ON monitors_auditentry
  FOR EACH STATEMENT EXECUTE FUNCTION monitors_audit_is_final();
ALTER TABLE monitors_auditentry ENABLE ALWAYS TRIGGER audit_unchanged;
ALTER TABLE monitors_auditentry ENABLE ALWAYS TRIGGER audit_not_emptied;
"""

REVERSE = """
DROP TRIGGER audit_unchanged ON monitors_auditentry;
DROP TRIGGER audit_not_emptied ON monitors_auditentry;
DROP FUNCTION monitors_audit_is_final();
"""
