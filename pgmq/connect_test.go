package pgmq_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestConnect(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	f := fixture{Client: connect(t, db.DSN), queue: newQueueName()}
	f.create(t)
	f.send(t, "1")
	require.Equal(t, []string{"1"}, f.bodies(t))

	f.Close()
	f.Close()
	_, err := f.Queues(t.Context())
	require.Error(t, err, "the pool is closed")
}

func TestConnectTakesParts(t *testing.T) {
	t.Parallel()
	cfg := configOf(pgmqtest.New(t))
	cfg.ApplicationName = `it's a "name" \`
	cfg.MaxConns = 3
	require.NoError(t, cfg.Validate())
	_, err := connect(t, cfg.DSN()).Queues(t.Context())
	require.NoError(t, err)
}

func TestConnectTakesDatabaseURL(t *testing.T) {
	db := pgmqtest.New(t)
	t.Setenv("DATABASE_URL", db.DSN)
	t.Setenv("PGDATABASE", "nosuch")
	_, err := connect(t, "").Queues(t.Context())
	require.NoError(t, err)
	_, err = pgmq.Connect(t.Context(), pgmq.Config{Host: "127.0.0.1", Port: 1}.DSN())
	require.Error(t, err, "what is given counts more")
}

//nolint:paralleltest // it sets variables of the environment
func TestConnectTakesVariables(t *testing.T) {
	cfg := configOf(pgmqtest.New(t))
	for name, value := range map[string]string{
		"DATABASE_URL": "", "PGHOST": cfg.Host, "PGPORT": strconv.Itoa(cfg.Port), "PGDATABASE": cfg.Database,
		"PGUSER": cfg.User, "PGPASSWORD": cfg.Password, "PGSSLMODE": "prefer",
	} {
		t.Setenv(name, value)
	}
	for _, dsn := range []string{"", pgmq.Config{}.DSN(), "connect_timeout=30"} {
		_, err := connect(t, dsn).Queues(t.Context())
		require.NoError(t, err)
	}
}

func TestCloseOnlyWhatWasOpened(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	std := newStdDB(t, "pgx", db.DSN)
	for _, c := range []*pgmq.Client{pgmq.New(db.Pool), pgmq.NewStd(std)} {
		c.Close()
		_, err := c.Queues(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, connect(t, db.DSN).InTx(t.Context(), func(tx *pgmq.Client) error {
		tx.Close()
		_, err := tx.Queues(t.Context())
		return err
	}))
}

func TestConnectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := pgmq.Connect(ctx, pgmqtest.New(t).DSN)
	require.ErrorIs(t, err, context.Canceled)
}

// No error and no line of the log has the password in it, or what may be a part of it.
func TestPasswordIsNotShown(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	db := pgmqtest.New(t)
	server := configOf(db)
	wrong := server
	wrong.Password = secret
	wrong.Host, wrong.Port = startPgBouncer(t, db, "auth_type = plain"), 6432
	nowhere := wrong
	nowhere.Host, nowhere.Port = "127.0.0.1", 1
	missing := wrong
	missing.Host, missing.Port, missing.Database = server.Host, server.Port, "nosuch"
	for name, dsn := range map[string]string{
		"wrong password":       wrong.DSN(),
		"nobody listens":       nowhere.DSN(),
		"no such socket":       pgmq.Config{Host: "/nosuch", Password: secret}.DSN(),
		"no such database":     missing.DSN(),
		"URL, nobody listens":  "postgres://u:" + secret + "@127.0.0.1:1/db",
		"port":                 "postgres://u:" + secret + "@h:port/db",
		"slash":                "postgres://u:p/" + secret + "@127.0.0.1/db",
		"number and slash":     "postgres://u:12/" + secret + "@127.0.0.1/db",
		"slash and ?":          "postgres://u:12/3?" + secret + "=@127.0.0.1/db",
		"at and slash":         "postgres://u:p@127.0.0.1/" + secret + "@127.0.0.1:1/db",
		"percent":              "postgres://u:%zz" + secret + "@h/db",
		"brackets":             "postgres://u:[" + secret + "@h/db",
		"other scheme":         "mysql://u:" + secret + "@h/db",
		"query":                "postgres://h/db?password=" + secret + "&sslmode=nosuch",
		"open quote":           "host=h password='" + secret,
		"space":                "host=h password=a " + secret + " user=u",
		"backslash":            `host=h password='a\' ` + secret,
		"key port":             "host=h port=x password=" + secret,
		"key sslmode":          "host=h sslmode=nosuch password=" + secret,
		"key pool":             "host=h pool_max_conns=x password=" + secret,
		"key mode":             "host=h default_query_exec_mode=x password=" + secret,
		"key target":           "host=h target_session_attrs=x password=" + secret,
		"key timeout":          "host=h connect_timeout=x password=" + secret,
		"key service":          "host=h service=nosuch password=" + secret,
		"backquotes":           "host=h sslmode=`:x password='`: " + secret + "'",
		"the password alone":   secret,
		"something with a NUL": "password=" + secret + "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			client, err := pgmq.Connect(t.Context(), dsn, pgmq.WithLogger(debugLogger(&log)))
			require.Nil(t, client)
			var failed *pgmq.Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "connect", failed.Op)
			debugLogger(&log).Error("from the caller", "error", err)
			require.NotContains(t, log.String(), secret)
			requireNotShown(t, err, secret)
			if name == "wrong password" {
				var server interface{ SQLState() string }
				require.ErrorAs(t, err, &server)
				require.Contains(t, []string{"28P01", "08P01"}, server.SQLState(), err) // depends on PgBouncer's version
			}
		})
	}
}

// requireNotShown looks at an error and all its causes.
func requireNotShown(t *testing.T, err error, secret string) {
	t.Helper()
	for _, format := range []string{"%v", "%+v", "%#v", "%q", "%d"} {
		require.NotContains(t, fmt.Sprintf(format, err), secret, "%T", err)
	}
	switch err := err.(type) { //nolint:errorlint // each cause has its turn
	case interface{ Unwrap() error }:
		if cause := err.Unwrap(); cause != nil {
			requireNotShown(t, cause, secret)
		}
	case interface{ Unwrap() []error }:
		for _, cause := range err.Unwrap() {
			requireNotShown(t, cause, secret)
		}
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p@h:port/db":           "URL",
		"postgres://u:p/q@h/db":              "percent-encoded",
		"host=h port=70000":                  "invalid port",
		"host=h sslmode=nosuch":              "TLS",
		"host=h pool_max_conns=many":         "pool_max_conns",
		"host=h default_query_exec_mode=any": "default_query_exec_mode",
		"nonsense":                           "keyword/value",
	} {
		_, err := pgmq.Connect(t.Context(), dsn)
		var value *pgmq.ValueError
		require.ErrorAs(t, err, &value, dsn)
		require.Contains(t, err.Error(), want)
	}
	// In a URL that is as it should be nothing is refused.
	for _, dsn := range []string{
		"postgres://me%40tenant:p%2Fq%40r@127.0.0.1:1/db", "postgres://me:p@127.0.0.1:1/db?application_name=me@home", "postgresql://127.0.0.1:1/a%40b",
	} {
		_, err := pgmq.Connect(t.Context(), dsn)
		require.Error(t, err)
		require.NotErrorAs(t, err, new(*pgmq.ValueError), dsn)
	}
}

// A client shows nothing of its connections either.
func TestClientDoesNotShowThePassword(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	cfg := configOf(pgmqtest.New(t))
	if cfg.Password == "" { // the server lets everybody in
		cfg.Password = secret
	}
	client := connect(t, cfg.DSN())
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.NotContains(t, fmt.Sprintf(format, client), cfg.Password)
		require.NotContains(t, fmt.Sprintf(format, *client), cfg.Password)
	}
}

func connect(t *testing.T, dsn string, opts ...pgmq.Option) *pgmq.Client {
	t.Helper()
	client, err := pgmq.Connect(t.Context(), dsn, opts...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// configOf is how to get to the database of a test.
func configOf(db *pgmqtest.Database) pgmq.Config {
	c := db.Pool.Config().ConnConfig
	return pgmq.Config{Host: c.Host, Port: int(c.Port), Database: c.Database, User: c.User, Password: c.Password, SSLMode: "prefer"}
}

func debugLogger(to *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
