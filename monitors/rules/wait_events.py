"""What a wait event means: one plain sentence for the events that people meet, else for its type.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-TABLE
"""

from __future__ import annotations

TYPES = {
    "Activity": "It is a process of the server that has nothing to do at the moment.",
    "Buffer": "It waits for a page in shared buffers that another backend uses at the same moment.",
    "BufferPin": "It waits until nobody looks at a page; an open cursor may hold it for long.",
    "Client": "It waits for whoever is at the other end of the connection.",
    "Extension": "It waits for something that an extension does.",
    "IO": "It waits for a file to be read or written.",
    "IPC": "It waits for another process of the server.",
    "Lock": "It waits for a lock that another transaction holds: see by whom it is blocked.",
    "LWLock": "It waits for a structure in shared memory that another backend uses; long ones mean many at once.",
    "Timeout": "It waits for a time to pass.",
}
"""By wait_event_type. From 19 on `Buffer` is what was `BufferPin`, and a part of `LWLock`."""

EVENTS = {
    (
        "Buffer",
        "BufferCleanup",
    ): "It waits until nobody looks at a page; an open cursor may hold it for long.",
    (
        "Client",
        "ClientRead",
    ): "It waits for the client's next message: in a transaction, the application dawdles.",
    (
        "Client",
        "ClientWrite",
    ): "It has rows for the client, which does not fetch them, or the network is slow.",
    ("Client", "WalSenderWaitForWal"): "It waits for WAL that a logical replica can be sent.",
    ("Client", "WalSenderWriteData"): "It waits for its replica to take or confirm WAL.",
    (
        "IO",
        "BuffileRead",
    ): "It reads a temporary file: a sort, hash or index build did not fit its memory.",
    (
        "IO",
        "BuffileWrite",
    ): "It writes a temporary file: a sort, hash or index build does not fit its memory.",
    ("IO", "AioIoCompletion"): "It waits for a read that was begun ahead to be done.",
    ("IO", "CopyFromRead"): "It waits for the file or program that COPY reads from.",
    ("IO", "CopyToWrite"): "It waits for the file or program that COPY writes to.",
    ("IO", "DataFileExtend"): "It makes a table's or index's file longer: many rows are added.",
    ("IO", "DataFileFlush"): "It has the system write pages to disk that it wrote before.",
    ("IO", "DataFileImmediateSync"): "It waits until a file it wrote itself is safely on disk.",
    ("IO", "DataFilePrefetch"): "It asks the system for pages that it will need soon.",
    ("IO", "DataFileRead"): "It reads pages of a table or index that are not in shared buffers.",
    (
        "IO",
        "DataFileSync",
    ): "It waits until a table's or index's file is safely on disk, as checkpoints do.",
    ("IO", "DataFileTruncate"): "It gives the end of a table's file back to the disk.",
    (
        "IO",
        "DataFileWrite",
    ): "It writes changed pages of a table or index; a client's does so where no clean page is free.",
    (
        "IO",
        "SlruRead",
    ): "It reads the state of transactions from disk, since it is not in memory any more.",
    ("IO", "SlruWrite"): "It writes the state of transactions to make place in memory.",
    ("IO", "WalInitWrite"): "It makes a new WAL file: more WAL is written than files are recycled.",
    ("IO", "WalRead"): "It reads WAL from disk, as replication does for a replica that is behind.",
    (
        "IO",
        "WalSync",
    ): "It waits until WAL is safely on disk, as each commit does: the disk decides how long.",
    ("IO", "WalWrite"): "It writes WAL to its file.",
    ("IPC", "ArchiveCommand"): "It waits for archive_command to end.",
    ("IPC", "BackupWaitWalArchive"): "The backup is done and waits until its WAL is archived.",
    ("IPC", "BgworkerShutdown"): "It waits for a background worker to end.",
    ("IPC", "BgworkerStartup"): "It waits for a background worker to begin.",
    (
        "IPC",
        "BtreePage",
    ): "It waits for another worker of a parallel index scan to say which page comes next.",
    ("IPC", "BufferIo"): "It needs a page that another backend just reads or writes.",
    ("IPC", "CheckpointDone"): "It waits for a checkpoint that was asked for to end.",
    ("IPC", "CheckpointStart"): "It waits for a checkpoint that was asked for to begin.",
    ("IPC", "ExecuteGather"): "It waits for rows of its parallel workers.",
    ("IPC", "HashBuildHashInner"): "It waits for the others that fill a parallel hash table.",
    ("IPC", "MessageQueueReceive"): "It waits for rows of a parallel worker.",
    (
        "IPC",
        "MessageQueueSend",
    ): "It has rows that the leader of its parallel query does not take yet.",
    (
        "IPC",
        "ParallelCreateIndexScan",
    ): "It waits for the workers of a parallel index build to read the table.",
    ("IPC", "ParallelFinish"): "It waits for its parallel workers to end.",
    (
        "IPC",
        "ProcarrayGroupUpdate",
    ): "It commits together with others and waits for the first of them.",
    (
        "IPC",
        "RecoveryConflictSnapshot",
    ): "Replay waits for a query on this standby that still sees old rows.",
    ("IPC", "RecoveryPause"): "Replay on this standby is paused until somebody resumes it.",
    (
        "IPC",
        "SafeSnapshot",
    ): "It waits for a moment at which a serializable transaction needs no checks.",
    ("IPC", "SyncRep"): "Its commit waits until a synchronous standby has confirmed it.",
    ("IPC", "XactGroupUpdate"): "It commits together with others and waits for the first of them.",
    (
        "Lock",
        "advisory",
    ): "It waits for an advisory lock that another session took by its own choice.",
    (
        "Lock",
        "extend",
    ): "It waits for its turn to make a table's file longer: many sessions add rows at once.",
    ("Lock", "frozenid"): "It waits for another vacuum to note how old the database's rows are.",
    ("Lock", "object"): "It waits for a lock on a database, role, schema, type or the like.",
    ("Lock", "page"): "It waits for a lock on a page of an index.",
    (
        "Lock",
        "relation",
    ): "It waits for a lock on a table, index or view that another transaction holds.",
    ("Lock", "spectoken"): "It waits whether another INSERT … ON CONFLICT of the same row stays.",
    (
        "Lock",
        "transactionid",
    ): "It waits for the transaction that changed or locked the same row to end.",
    (
        "Lock",
        "tuple",
    ): "It stands in line, behind another waiter, for a row that a third transaction holds.",
    (
        "Lock",
        "virtualxid",
    ): "It waits for transactions to end that began earlier, as CREATE INDEX CONCURRENTLY does.",
    (
        "LWLock",
        "BufferContent",
    ): "It waits to read or change a page in shared buffers that others use: a hot page.",
    (
        "LWLock",
        "BufferMapping",
    ): "It waits to bring a page into shared buffers or out: too much is read at once.",
    (
        "LWLock",
        "LockFastPath",
    ): "It waits to note its locks: many locks a transaction, as with many partitions.",
    (
        "LWLock",
        "LockManager",
    ): "It waits for the table of locks: many sessions lock many tables or partitions.",
    (
        "LWLock",
        "MultiXactMemberSLRU",
    ): "It waits for the members of shared row locks to be read or written.",
    (
        "LWLock",
        "MultiXactOffsetSLRU",
    ): "It waits for the places of shared row locks to be read or written.",
    ("LWLock", "ParallelHashJoin"): "It waits for the others that share a parallel hash join.",
    ("LWLock", "PredicateLockManager"): "It waits for the locks of serializable transactions.",
    (
        "LWLock",
        "ProcArray",
    ): "It waits to take a snapshot or to end a transaction: very many sessions are at work.",
    ("LWLock", "SInvalRead"): "It waits to hear which tables others changed the definition of.",
    (
        "LWLock",
        "SubtransSLRU",
    ): "It waits for subtransactions: savepoints beside a long transaction cost this.",
    (
        "LWLock",
        "WALInsert",
    ): "It waits for a place to put its WAL: very many sessions write at once.",
    ("LWLock", "WALWrite"): "It waits while another session writes WAL, mostly to commit with it.",
    ("LWLock", "XactSLRU"): "It waits for the state of transactions to be read or written.",
    ("LWLock", "XidGen"): "It waits for a new transaction id.",
    (
        "Timeout",
        "CheckpointWriteDelay",
    ): "The checkpointer rests between writes, as checkpoint_completion_target says.",
    ("Timeout", "CommitDelay"): "Its commit waits as commit_delay says, to be written with others.",
    ("Timeout", "PgSleep"): "It called pg_sleep(): it waits because it was told to.",
    ("Timeout", "RecoveryApplyDelay"): "Replay waits as recovery_min_apply_delay says.",
    ("Timeout", "SpinDelay"): "It waits for a spinlock: many processors want the same thing.",
    ("Timeout", "VacuumDelay"): "The vacuum sleeps, as its cost limit says.",
    (
        "Timeout",
        "VacuumTruncate",
    ): "The vacuum waits for the lock with which it cuts empty pages off.",
}
"""By type and event, as `pg_wait_events` of 17 and later spells them."""

# Up to 16 it is BufFileRead and WALSync, since then BuffileRead and WalSync.
SENTENCES = {(kind, name.casefold()): text for (kind, name), text in EVENTS.items()}


def explain(wait_event_type: str | None, wait_event: str | None) -> str:
    """Return what a backend waits for as a sentence, '' where it waits for nothing or that is not known."""
    if not wait_event_type:
        return ""
    known = SENTENCES.get((wait_event_type, (wait_event or "").casefold()))
    return known or TYPES.get(wait_event_type, "")
