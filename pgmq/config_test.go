package pgmq_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// Whatever is in the fields, the server gets it as it is.
func TestConfigQuotes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringOfN(rapid.RuneFrom([]rune(`'\" =@:/?#%ü`+"\n\t")), 1, 8, -1),
			rapid.StringMatching(`[^\x00]{1,20}`),
		)
		cfg := pgmq.Config{
			Host: "h", Port: rapid.IntRange(1, 65535).Draw(t, "port"), Database: text.Draw(t, "database"),
			User: text.Draw(t, "user"), Password: text.Draw(t, "password"), ApplicationName: text.Draw(t, "application"),
			MaxConns: rapid.IntRange(1, 1000).Draw(t, "conns"), SSLMode: "disable",
		}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		parsed, err := pgxpool.ParseConfig(cfg.DSN())
		if err != nil {
			t.Fatal(err)
		}
		c := parsed.ConnConfig
		got := pgmq.Config{
			Host: c.Host, Port: int(c.Port), Database: c.Database, User: c.User, Password: c.Password,
			ApplicationName: c.RuntimeParams["application_name"], MaxConns: int(parsed.MaxConns), SSLMode: "disable",
		}
		if got != cfg {
			t.Fatalf("%q came back as %q", cfg.DSN(), got.DSN())
		}
	})
}

func TestConfigDoesNotShowThePassword(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	cfg := pgmq.Config{Host: "h", User: "u", Password: secret}
	holder := struct{ Config pgmq.Config }{cfg}
	var shown bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&shown, format, cfg)
		fmt.Fprintf(&shown, format, &cfg)
		fmt.Fprintf(&shown, format, holder)
		fmt.Fprintf(&shown, format, []pgmq.Config{cfg})
	}
	require.Contains(t, shown.String(), `host='h' user='u' password='***'`)
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&shown, nil), slog.NewTextHandler(&shown, nil)} {
		slog.New(handler).Info("message", "config", cfg, "pointer", &cfg, "holder", holder)
	}
	encoded, err := json.Marshal(holder)
	require.NoError(t, err)
	shown.Write(encoded)
	require.NotContains(t, shown.String(), secret)
	require.NotContains(t, shown.String(), fmt.Sprintf("%x", secret))

	require.Equal(t, `host='h'`, pgmq.Config{Host: "h"}.String(), "there is none")
	require.Contains(t, cfg.DSN(), secret)
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	require.NoError(t, pgmq.Config{}.Validate())
	require.Empty(t, pgmq.Config{}.DSN())
	for field, cfg := range map[string]pgmq.Config{
		"Host":            {Host: "a\x00b"},
		"Port":            {Port: 65536},
		"Database":        {Database: "\x00"},
		"User":            {User: "u\x00options"},
		"Password":        {Password: "s3cr3t\x00"},
		"SSLMode":         {SSLMode: "on"},
		"ApplicationName": {ApplicationName: "\x00"},
		"MaxConns":        {MaxConns: -1},
	} {
		var value *pgmq.ValueError
		require.ErrorAs(t, cfg.Validate(), &value, field)
		require.Equal(t, field, value.Name)
		require.NotContains(t, value.Error(), "s3cr3t")
	}
}
