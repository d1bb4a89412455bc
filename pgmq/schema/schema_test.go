package schema_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestVersions(t *testing.T) {
	t.Parallel()
	versions := schema.Versions()
	if len(versions) == 0 {
		t.Fatal("no version")
	}
	for i, v := range versions {
		if v.Number != i+1 {
			t.Errorf("version %d is number %d", i+1, v.Number)
		}
		sum := sha256.Sum256([]byte(v.SQL))
		if v.Checksum != hex.EncodeToString(sum[:]) {
			t.Errorf("version %d: checksum %s is not that of its SQL", v.Number, v.Checksum)
		}
	}

	versions[0].SQL = ""
	if schema.Versions()[0].SQL == "" {
		t.Error("a caller can change what others get")
	}
}

// Every function either sets its search_path, or is of a kind that cannot be led astray: bound when it was
// created, or on the path of sending, which TestHijack covers.
func TestEveryFunctionSetsItsSearchPath(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	unset := column[string](t, d.Pool, `
		select distinct p.proname::text
		from pg_proc as p
		where p.pronamespace = 'pgmq'::regnamespace
			and p.prosqlbody is null
			and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
		order by 1`)
	const want = "_send_batch_topic _send_topic send send_batch send_batch_topic send_topic"
	if got := strings.Join(unset, " "); got != want {
		t.Errorf("without a search_path: %s; want %s", got, want)
	}
}
