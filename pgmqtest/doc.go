// Package pgmqtest gives every test a Postgres database of its own, with PGMQ installed.
//
//	func TestOrders(t *testing.T) {
//		t.Parallel()
//		db := pgmqtest.New(t)
//		client := pgmq.New(db.Pool)
//		...
//	}
//
// The database is on a real server and is dropped when the test ends. It is a copy of a template, so that a
// test pays tens of milliseconds. A test that wants to stop the server, kill or restart it starts one for
// itself with [StartServer]; a program gets a server from [Start], or a pool of connections from [Connect].
//
// # Where the server comes from
//
// Tests take the first of these that there is:
//
//  1. The server named by the environment variable PGMQ_TEST_DSN, a connection string. The role has to be
//     allowed to create databases. Their names begin with pgmqtest_; one database with PGMQ installed stays,
//     as the template of the next run.
//  2. Postgres's programs on this machine: where pg_config says, in the usual places of Linux distributions
//     and macOS (the newest version there), or in PATH. PGMQ_TEST_BINDIR names a directory to take instead,
//     and the word none leaves them out.
//  3. Docker, with [Image].
//
// If there is none the test fails and says so. Postgres has to be version 14 or later.
//
// # A server started here
//
// All tests of one test binary share one server, which is started when the first of them wants it. It listens
// on a free port of 127.0.0.1, lets everybody on this machine in, and does not care for power cuts, which
// makes it fast. Where there are 2 GB to spare in memory its files are there: TMPDIR names another place.
// With [Durable] or [Setting] a test gets a server of its own with other settings.
//
// When the test binary ends, the server and its files go. It does not matter how: a process beside it waits
// for it, and tidies up after a panic, an interrupt and SIGKILL just as well. As root, the server runs as
// user postgres.
//
// # Leak checks
//
// Between tests nothing of this package runs in the process, so that goleak's VerifyTestMain finds nothing. A
// database has a pool, which does have goroutines, until the test's clean-up functions have run: a leak check
// in a single test has to be registered with t.Cleanup, before New is called.
package pgmqtest
