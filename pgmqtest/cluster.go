package pgmqtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// A cluster is an engine: a throwaway Postgres run from the binaries on this machine.
type cluster struct {
	keeper  *keeper
	bindir  string
	account *user.User // whom the server runs as; nil: the current user
	port    int
}

// How long the commands that start and stop Postgres take at most.
const (
	startTimeout = time.Minute
	stopTimeout  = time.Minute
)

func newCluster(ctx context.Context, bindir string, c config) (_ *cluster, err error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	attributes, err := detachedAs(account)
	if err != nil {
		return nil, err
	}

	k, err := startKeeper(attributes, clusterParent(c), farewell(bindir))
	if err != nil {
		return nil, err
	}
	cl := &cluster{keeper: k, bindir: bindir, account: account}
	defer func() {
		if err != nil {
			err = errors.Join(err, cl.close())
		}
	}()

	initdb := cl.command("initdb", "--pgdata", cl.path("data"), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if err := k.run(ctx, initdb); err != nil {
		return nil, err
	}
	if err := cl.configure(c); err != nil {
		return nil, err
	}

	// A free port may be taken by somebody else before Postgres gets there.
	for attempt := 0; ; attempt++ {
		if cl.port, err = freePort(ctx); err != nil {
			return nil, err
		}
		err = cl.start(ctx)
		if err == nil {
			return cl, nil
		}
		if attempt == 10 || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

// clusterParent is where a cluster's files go: into memory, where disks that others keep busy do not delay it,
// unless the files are meant to last, or there is little memory, or TMPDIR names another place.
func clusterParent(c config) string {
	if dir := memoryDirectory(); dir != "" && !c.durable && os.Getenv("TMPDIR") == "" {
		return dir
	}
	return os.TempDir()
}

// farewell is the line of shell that ends a cluster, whatever its state.
//
// The data directory is moved away first, so that a restart under way elsewhere cannot bring the server
// back. A paused server would not hear the request to stop, so it is woken; what then still does not stop in
// time is killed.
func farewell(bindir string) string {
	pgctl := quote(filepath.Join(bindir, "pg_ctl")) + " --pgdata gone"
	kill := ` "$(head -n 1 gone/postmaster.pid)"`
	return "! mv data gone || ! " + pgctl + " status || " +
		"{ kill -CONT" + kill + "; " + pgctl + " --mode immediate --timeout 20 stop; } || kill -KILL" + kill + " || ! kill -0" + kill
}

func (cl *cluster) dsn() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", cl.port)
}

// start does nothing when the server runs.
//
// A server that was killed leaves its lock file, and for a moment processes. Until they are gone another
// server cannot start, and may even be taken for running.
func (cl *cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := cl.tryStart(ctx)
		if err == nil || !cl.isLocked() {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (cl *cluster) tryStart(ctx context.Context) error {
	status := cl.command("pg_ctl", "--pgdata", cl.path("data"), "status")
	start := cl.command("pg_ctl", "--pgdata", cl.path("data"), "--log", cl.path("log"), "--wait", "--timeout", seconds(ctx, startTimeout),
		"--options", "-p "+strconv.Itoa(cl.port), "start")

	// The log of this attempt alone says why it failed.
	before := cl.logSize()
	if err := cl.keeper.run(ctx, status+" || "+start); err != nil {
		return errors.Join(err, cl.logSince(before))
	}
	conn, err := pgx.Connect(ctx, cl.dsn())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// isLocked says whether a server of this cluster runs or died without a farewell.
func (cl *cluster) isLocked() bool {
	_, err := os.Stat(cl.path("data/postmaster.pid"))
	return err == nil
}

// stop does nothing when the server does not run.
func (cl *cluster) stop(ctx context.Context, how shutdown) error {
	status := cl.command("pg_ctl", "--pgdata", cl.path("data"), "status")
	stop := cl.command("pg_ctl", "--pgdata", cl.path("data"), "--mode", string(how), "--wait", "--timeout", seconds(ctx, stopTimeout), "stop")
	return cl.keeper.run(ctx, "! "+status+" || "+stop)
}

func (cl *cluster) restartCommand() []string {
	command := []string{
		filepath.Join(cl.bindir, "pg_ctl"), "--silent", "--pgdata", cl.path("data"), "--log", cl.path("log"),
		"--mode", "fast", "--wait", "--timeout", "60", "restart",
	}
	if cl.account == nil {
		return command
	}
	return []string{"su", cl.account.Username, "-s", "/bin/sh", "-c", "cd / && exec " + shellLine(command)}
}

func (cl *cluster) close() error { return cl.keeper.close() }

func (cl *cluster) path(name string) string { return filepath.Join(cl.keeper.dir, name) }

// command is a line of shell that runs one of Postgres's programs.
func (cl *cluster) command(program string, args ...string) string {
	return shellLine(append([]string{filepath.Join(cl.bindir, program)}, args...))
}

// configure appends to postgresql.conf, before the first start.
func (cl *cluster) configure(c config) (err error) {
	file, err := os.OpenFile(cl.path("data/postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.WriteString("\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n" + c.file())
	return err
}

func (cl *cluster) logSize() int64 {
	info, err := os.Stat(cl.path("log"))
	if err != nil {
		return 0 // it is created by the first start
	}
	return info.Size()
}

// logSince is what the server wrote to its log from an offset on, at most its last 4 kB, as an error.
func (cl *cluster) logSince(offset int64) error {
	log, err := os.ReadFile(cl.path("log"))
	if err != nil {
		return err
	}
	log = log[min(max(offset, int64(len(log)-4096)), int64(len(log))):]
	return fmt.Errorf("log of the server: %s", strings.TrimSpace(string(log)))
}

// freePort finds a TCP port on which nobody listens. It stays below the ports that operating systems give
// to outgoing connections: one of those could take the port while the server is stopped.
func freePort(ctx context.Context) (int, error) {
	var err error
	for range 100 {
		port := 15000 + rand.IntN(16000)
		var listener net.Listener
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// seconds is how long ctx has, at most limit and at least one second, as pg_ctl wants it.
func seconds(ctx context.Context, limit time.Duration) string {
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	return strconv.Itoa(max(1, int(limit.Seconds())))
}

func shellLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return strings.Join(quoted, " ")
}
