package pgmqtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNoServer says that there is no Postgres to be had, and what to do.
var ErrNoServer = errors.New(`pgmqtest: no Postgres found; do one of these:
  - set PGMQ_TEST_DSN to the connection string of a server, with a role that may create databases
  - install Postgres 14 or later on this machine; name its directory of programs in PGMQ_TEST_BINDIR
    if it is in an unusual place
  - start Docker, and have the docker command in PATH`)

// databaseURL is the database that programs are told to use.
func databaseURL() string { return os.Getenv("DATABASE_URL") }

// givenServer is the server that tests are told to use, or nil.
func givenServer() *Server {
	if dsn := os.Getenv("PGMQ_TEST_DSN"); dsn != "" {
		return &Server{dsn: dsn}
	}
	return nil
}

// startServer starts a server with the first means there is: Postgres's programs, then Docker. When the means
// is there but fails, that is the error: falling back would hide it.
func startServer(ctx context.Context, opts []Option) (*Server, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Server{dsn: e.dsn(), engine: e, copyFiles: !c.durable}, nil
}

func startEngine(ctx context.Context, c config) (engine, error) {
	bindir, err := findBinaries(ctx)
	if err != nil {
		return nil, err
	}
	if bindir != "" {
		cl, err := newCluster(ctx, bindir, c)
		if err != nil {
			return nil, fmt.Errorf("pgmqtest: start Postgres from %s: %w", bindir, err)
		}
		return cl, nil
	}
	docker, err := findDocker(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w\nDocker was tried: %w", ErrNoServer, err)
	}
	ct, err := newContainer(ctx, docker, c)
	if err != nil {
		return nil, fmt.Errorf("pgmqtest: start Postgres in Docker from %s: %w", Image, err)
	}
	return ct, nil
}

// findBinaries is the directory of Postgres's programs, or "".
func findBinaries(ctx context.Context) (string, error) {
	switch bindir := os.Getenv("PGMQ_TEST_BINDIR"); bindir {
	case "":
	case "none":
		return "", nil
	default:
		if !isBindir(bindir) {
			return "", fmt.Errorf("pgmqtest: PGMQ_TEST_BINDIR = %q: must be a directory with initdb, pg_ctl and postgres", bindir)
		}
		return filepath.Abs(bindir)
	}

	var candidates []string
	// pg_config may belong to the client library alone: what it names need not hold a server.
	if output, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		candidates = append(candidates, strings.TrimSpace(string(output)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",                 // macOS
		"/usr/local/opt/postgresql@*/bin",                    // macOS on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // macOS
		"/usr/libexec/postgresql*",                           // Alpine
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		slices.SortFunc(matches, newestFirst)
		candidates = append(candidates, matches...)
	}
	candidates = append(candidates, filepath.SplitList(os.Getenv("PATH"))...)

	for _, candidate := range candidates {
		if filepath.IsAbs(candidate) && isBindir(candidate) {
			return candidate, nil
		}
	}
	return "", nil
}

func isBindir(dir string) bool {
	for _, program := range []string{"initdb", "pg_ctl", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

// newestFirst orders paths by the version in them: the one number by which installations differ.
func newestFirst(a, b string) int {
	return cmp.Compare(version(b), version(a))
}

func version(path string) int {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	for _, number := range strings.FieldsFunc(path, digits) {
		if n, err := strconv.Atoi(number); err == nil {
			return n
		}
	}
	return 0
}
