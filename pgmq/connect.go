package pgmq

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Connect returns a client with a pool of connections of its own, which Close closes, after one of
// them has reached the server.
//
// dsn is a URL ("postgres://app:secret@db.internal/shop?sslmode=verify-full"), or a string of keywords
// and values as libpq takes it ("host=db.internal dbname=shop"); Config makes one from its parts. If it
// is empty, the environment variable DATABASE_URL is taken. What they leave open is taken from the PG*
// variables (PGHOST, PGUSER, PGPASSWORD, ...) and the password file. What pgxpool.ParseConfig knows
// beyond that counts too: pool_max_conns is the size of the pool, by default the number of CPUs and
// at least 4; default_query_exec_mode is how statements are executed, see Client.
//
// No error shows the password. One that says dsn cannot be parsed shows nothing of it.
func Connect(ctx context.Context, dsn string, opts ...Option) (*Client, error) {
	op := operation{name: "connect"}
	if dsn == "" {
		dsn = os.Getenv("DATABASE_URL")
	}
	config, err := parseDSN(dsn)
	if err != nil {
		return nil, op.fail(err)
	}

	c := newClient().with(opts)
	start := c.clock(ctx)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		c.db, c.own = &pgxHandle{db: pool}, pool.Close
		err = pool.Ping(ctx)
	}
	if !start.IsZero() {
		c.logDone(ctx, op, start, err)
	}
	if err != nil {
		c.Close()
		return nil, c.wrap(ctx, op, err)
	}
	return c, nil
}

// parseDSN never returns pgx's error. That has the whole string, of which it cannot always know what is
// the password.
func parseDSN(dsn string) (*pgxpool.Config, error) {
	refuse := func(rule string) error {
		return &ValueError{Name: "the connection string", Value: "not shown because it may hold a password", Rule: rule}
	}
	if hasStrayAt(dsn) {
		return nil, refuse("a URL with no @ behind the host: a password with @ or / in it has to be percent-encoded")
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, refuse("a URL or a string of keywords and values, as libpq takes them: " + reasonOf(err))
	}
	return config, nil
}

// hasStrayAt says whether a URL is likely to have a password that goes on behind what looks like its
// host. It would be taken for the host, the port and the database, and errors show these.
func hasStrayAt(dsn string) bool {
	scheme, rest, isURL := strings.Cut(dsn, "://")
	if !isURL || scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	authority, rest, _ := strings.Cut(rest, "/")
	path, query, _ := strings.Cut(rest, "?")
	return strings.Contains(path, "@") || strings.Contains(query, "@") && !strings.Contains(authority, "@")
}

// reasonOf is what pgx has against a connection string, without any part of that.
func reasonOf(err error) string {
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return "it cannot be parsed"
	}
	// cannot parse `...`: reason: value (cause)
	text := parse.Error()
	if cause := parse.Unwrap(); cause != nil {
		text = strings.TrimSuffix(text, " ("+cause.Error()+")")
	}
	reason, _, _ := strings.Cut(text[strings.LastIndex(text, "`: ")+len("`: "):], ":")
	return reason
}
