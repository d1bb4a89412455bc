package pgmq_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// FuzzNames holds the validators of names to the server's.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"", "orders", "a.b-c_D9", "a..b", ".a", "a.", "a*", "a.#", "a.**", "a.*#", "a b", "a/b", "a$b", "a;b", "a--b", "a'b", "é", "É",
		strings.Repeat("n", 47), strings.Repeat("n", 48), strings.Repeat("k", 255), strings.Repeat("k", 256),
	} {
		f.Add(seed)
	}
	conn := fuzzConn(f)
	f.Fuzz(func(t *testing.T, name string) {
		sendable := utf8.ValidString(name) && !strings.ContainsRune(name, 0)
		for validator, validate := range map[string]func(string) error{
			"validate_routing_key":   pgmq.ValidateRoutingKey,
			"validate_topic_pattern": pgmq.ValidateTopicPattern,
			"create":                 pgmq.ValidateQueueName,
		} {
			err := validate(name)
			if !sendable {
				if err == nil {
					t.Errorf("%s: %q cannot even be sent, but is valid", validator, name)
				}
				continue
			}
			if validator == "create" && strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII && unicode.ToLower(r) != r }) {
				continue // refused here, because servers differ
			}
			if takes := serverTakes(t, conn, validator, name); takes != (err == nil) {
				t.Errorf("%s(%q): server takes it: %t, client: %v", validator, name, takes, err)
			}
		}
	})
}

// FuzzMatchTopic holds MatchTopic to the server's routing.
func FuzzMatchTopic(f *testing.F) {
	for pattern, key := range map[string]string{
		"a.*": "a.b", "a.#": "a.b.c", "#": "a", "*": "a.b", "a*c": "abc", "a#c": "a.b.c", "*.*": "a.b", "a.*.c.#": "a.b.c.d",
	} {
		f.Add(pattern, key)
	}
	conn := fuzzConn(f)
	if _, err := conn.Exec(context.Background(), `select pgmq.create('q'::text)`); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if pgmq.ValidateTopicPattern(pattern) != nil || pgmq.ValidateRoutingKey(key) != nil {
			return
		}
		var matches bool
		err := rolledBack(conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(context.Background(), `select pgmq.bind_topic($1::text, 'q'::text)`, pattern); err != nil {
				return err
			}
			return tx.QueryRow(context.Background(), `select exists (select from pgmq.test_routing($1::text))`, key).Scan(&matches)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := pgmq.MatchTopic(pattern, key); got != matches {
			t.Errorf("MatchTopic(%q, %q) = %t, server: %t", pattern, key, got, matches)
		}
	})
}

func fuzzConn(f *testing.F) *pgx.Conn {
	f.Helper()
	conn, err := pgx.Connect(context.Background(), pgmqtest.New(f).DSN)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// serverTakes calls a function of PGMQ that refuses bad names.
func serverTakes(t *testing.T, conn *pgx.Conn, function, name string) bool {
	t.Helper()
	err := rolledBack(conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `select pgmq.`+function+`($1::text)`, name)
		return err
	})
	var refused interface{ SQLState() string }
	if err != nil && (!errors.As(err, &refused) || refused.SQLState() != "P0001") {
		t.Fatal(err)
	}
	return err == nil
}

var errRollback = errors.New("nothing is to stay")

func rolledBack(conn *pgx.Conn, f func(pgx.Tx) error) error {
	err := pgx.BeginFunc(context.Background(), conn, func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		return errRollback
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	return err
}
