#!/bin/sh
# PGlite's socket server has one session for all clients: what one sets, another one has, and the
# `options` of a start are dropped without a word. Both clients are told the pid that the server
# has too, so a client that compares the two learns nothing.
#
# Seen with @electric-sql/pglite 0.5.14 and pglite-socket 0.2.17 on Node.js 20:
#   first:  pid 42, promised 42, statement_timeout 0
#   second: pid 42, promised 42, lock_timeout 77s
# A PostgreSQL server says: statement_timeout 5s, two pids, lock_timeout 0.
set -eu
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit \
  @electric-sql/pglite@0.5.14 @electric-sql/pglite-socket@0.2.17 pg@8.23.1 >/dev/null
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => {
  console.log(s.address().port); s.close() })')
node_modules/.bin/pglite-server --db=memory:// --host=127.0.0.1 --port="$port" --max-connections=10 >log &
server=$!
for _ in $(seq 60); do grep -q listening log && break; sleep 1; done

cat >ask.js <<'EOF'
const { Client } = require("pg");
const place = { host: "127.0.0.1", port: Number(process.argv[2]), user: "postgres", database: "postgres" };
const value = async (client, sql) => Object.values((await client.query(sql)).rows[0])[0];
(async () => {
  const first = new Client({ ...place, options: "-c statement_timeout=5000" });
  const second = new Client(place);
  await first.connect();
  await second.connect();
  const timeout = await value(first, "SHOW statement_timeout");
  await first.query("SET lock_timeout = '77s'");
  const seen = await value(second, "SHOW lock_timeout");
  const pids = [await value(first, "SELECT pg_backend_pid()"), await value(second, "SELECT pg_backend_pid()")];
  console.log(`first:  pid ${pids[0]}, promised ${first.processID}, statement_timeout ${timeout}`);
  console.log(`second: pid ${pids[1]}, promised ${second.processID}, lock_timeout ${seen}`);
  await first.end();
  await second.end();
})();
EOF
node ask.js "$port" | tee found
cat >expected <<'EOF'
first:  pid 42, promised 42, statement_timeout 0
second: pid 42, promised 42, lock_timeout 77s
EOF
diff expected found
