package pgmqtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://me:se%2Fcret@example.org:5433/first?sslmode=disable&application_name=a%20b",
		"postgresql://me:se%2Fcret@example.org:5433?sslmode=disable&application_name=a%20b&dbname=first",
		"host=example.org port=5433 user=me password=se/cret dbname=first sslmode=disable application_name='a b'",
		"user=me password=se/cret host=example.org port=5433 sslmode=disable application_name='a b'",
	} {
		changed, err := withDatabase(dsn, "second")
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		got, err := pgx.ParseConfig(changed)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if got.Database != "second" || got.Host != "example.org" || got.Port != 5433 || got.User != "me" ||
			got.Password != "se/cret" || got.RuntimeParams["application_name"] != "a b" {
			t.Errorf("%s became %s", dsn, changed)
		}
	}
	if got, err := withDatabase("postgres://me:secret@[", "second"); err == nil {
		t.Errorf("got %q, want an error", got)
	}
}
