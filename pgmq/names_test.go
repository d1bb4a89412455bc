package pgmq_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestValidateQueueName(t *testing.T) {
	t.Parallel()
	valid := []string{
		"q", "orders", "orders.created:billing", "a-b.c", "a- -b", "MixedCase", "orders.*", "über", `a"b`, "a b", "1",
		strings.Repeat("n", 47), "orders~0123456789abcdef",
	}
	for _, name := range valid {
		if err := pgmq.ValidateQueueName(name); err != nil {
			t.Errorf("ValidateQueueName(%q) = %v, want nil", name, err)
		}
	}
	invalid := map[string]string{
		"":                        "is empty",
		strings.Repeat("n", 48):   "is 48 bytes long; at most 47 are allowed",
		strings.Repeat("ü", 24):   "is 48 bytes long; at most 47 are allowed",
		strings.Repeat("n", 5000): "is 5000 bytes long; at most 47 are allowed",
		strings.Repeat("Ⱥ", 20):   "has upper case other than A-Z, which becomes lower case on some servers only",
		"a$b":                     "contains one of $ ; ' NUL",
		"a;b":                     "contains one of $ ; ' NUL",
		"a'b":                     "contains one of $ ; ' NUL",
		"a\x00b":                  "contains one of $ ; ' NUL",
		"a--b":                    "contains --",
		"--":                      "contains --",
		"a\xff":                   "is not valid UTF-8",
	}
	for name, rule := range invalid {
		requireNameError(t, pgmq.ValidateQueueName(name), pgmq.NameError{Kind: "queue name", Name: name, Rule: rule}, pgmq.ErrInvalidQueueName)
	}
}

func TestValidateTopic(t *testing.T) {
	t.Parallel()
	const emptySegment = "has an empty segment: a dot at its start, at its end or after another dot"
	const wildcard = "contains a wildcard (* or #), which only a pattern may"
	const sideBySide = "has two wildcards side by side"
	tests := map[string]struct{ key, pattern string }{ // the rules broken; "" for none
		"a":                      {},
		"a.b":                    {},
		"a-b_c.D9":               {},
		"-._":                    {},
		strings.Repeat("k", 255): {},
		strings.Repeat("k", 256): {"is 256 bytes long; at most 255 are allowed", "is 256 bytes long; at most 255 are allowed"},
		"":                       {"is empty", "is empty"},
		".":                      {emptySegment, emptySegment},
		".a":                     {emptySegment, emptySegment},
		"a.":                     {emptySegment, emptySegment},
		"a..b":                   {emptySegment, emptySegment},
		"*..#":                   {wildcard, emptySegment},
		"a b":                    {"contains ' '; allowed are A-Z a-z 0-9 . _ -", "contains ' '; allowed are A-Z a-z 0-9 . _ -"},
		"a/b":                    {"contains '/'; allowed are A-Z a-z 0-9 . _ -", "contains '/'; allowed are A-Z a-z 0-9 . _ -"},
		"a\n":                    {`contains '\n'; allowed are A-Z a-z 0-9 . _ -`, `contains '\n'; allowed are A-Z a-z 0-9 . _ -`},
		"größe":                  {"contains 'ö'; allowed are A-Z a-z 0-9 . _ -", "contains 'ö'; allowed are A-Z a-z 0-9 . _ -"},
		"a\x00":                  {`contains '\x00'; allowed are A-Z a-z 0-9 . _ -`, `contains '\x00'; allowed are A-Z a-z 0-9 . _ -`},
		"*":                      {wildcard, ""},
		"#":                      {wildcard, ""},
		"a.*":                    {wildcard, ""},
		"a.#":                    {wildcard, ""},
		"#.b":                    {wildcard, ""},
		"*.*":                    {wildcard, ""},
		"a.*.b":                  {wildcard, ""},
		"a*":                     {wildcard, ""},
		"a#b":                    {wildcard, ""},
		"a.**":                   {wildcard, sideBySide},
		"a.##":                   {wildcard, sideBySide},
		"a.*#":                   {wildcard, sideBySide},
		"a.#*":                   {wildcard, sideBySide},
	}
	for topic, broken := range tests {
		requireNameError(t, pgmq.ValidateRoutingKey(topic),
			pgmq.NameError{Kind: "routing key", Name: topic, Rule: broken.key}, pgmq.ErrInvalidTopic)
		requireNameError(t, pgmq.ValidateTopicPattern(topic),
			pgmq.NameError{Kind: "topic pattern", Name: topic, Rule: broken.pattern}, pgmq.ErrInvalidTopic)
	}
}

func TestNameErrorIsShort(t *testing.T) {
	t.Parallel()
	err := pgmq.ValidateQueueName(strings.Repeat("n", 100_000))
	if got := err.Error(); len(got) > 300 || !strings.Contains(got, "100000 bytes") {
		t.Errorf("error is %d bytes long: %.300s", len(got), got)
	}
}

func TestMatchTopic(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, key string
		want         bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.B", false},
		{"a.b", "axb", false},
		{"a.b", "a.bc", false},
		{"a.b", "xa.b", false},
		{"*", "a", true},
		{"*", "a.b", false},
		{"logs.*", "logs.error", true},
		{"logs.*", "logs", false},
		{"logs.*", "logs.api.error", false},
		{"*.error", "api.error", true},
		{"*.error", "a.b.error", false},
		{"a*", "a", false},
		{"a*", "abc", true},
		{"a*", "ab.c", false},
		{"a*c", "abc", true},
		{"a*c", "abcc", true},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.b.c", false},
		{"logs.#", "logs.error", true},
		{"logs.#", "logs.api.error", true},
		{"logs.#", "logs", false},
		{"a.#.b", "a.b", false},
		{"a.#.b", "a.x.b", true},
		{"a.#.b", "a.x.y.b", true},
		{"#", "a.b.c", true},
		{"#.b", "b", false},
		{"#b", "b", true},
		{"a#b", "ab", true},
		{"a#b", "a.x.b", true},
		{"a#b", "a.x.bc", false},
		{strings.Repeat("#a*a", 60), strings.Repeat("a", 255), true},
		{strings.Repeat("#a*a", 60) + "b", strings.Repeat("a", 255), false},
		{"#z", strings.Repeat("a", 999) + "z", true}, // longer than any valid key
	}
	for _, test := range tests {
		if got := pgmq.MatchTopic(test.pattern, test.key); got != test.want {
			t.Errorf("MatchTopic(%.40q, %.40q) = %t, want %t", test.pattern, test.key, got, test.want)
		}
	}
}

// The meaning of a pattern is the regular expression that the server makes of it.
func TestMatchTopicIsTheServersExpression(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab.*#]{1,12}`).Draw(t, "pattern")
		key := rapid.StringMatching(`[ab.]{1,12}`).Draw(t, "key")
		want := topicExpression(pattern).MatchString(key)
		if got := pgmq.MatchTopic(pattern, key); got != want {
			t.Fatalf("MatchTopic(%q, %q) = %t, want %t", pattern, key, got, want)
		}
	})
}

func topicExpression(pattern string) *regexp.Regexp {
	expression := strings.NewReplacer(`\*`, `[^.]+`, "#", `.*`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^" + expression + "$")
}

// What is valid here is what our schema takes.
func TestNamesAgreeWithServer(t *testing.T) {
	t.Parallel()
	conn := serverConn(t)
	_, err := conn.Exec(t.Context(), `
		create function pg_temp.takes(validator text, name text) returns boolean
		language plpgsql as $$
		begin
			execute format('select pgmq.%I(%L::text)', validator, name);
			return true;
		exception when raise_exception then
			return false;
		end $$`)
	if err != nil {
		t.Fatal(err)
	}
	topics := rapid.OneOf(
		rapid.StringMatching(`[aZ0._*#-]{0,8}`), rapid.StringMatching(`(a[.*#]?){120,140}`), rapid.StringOfN(rapid.Rune(), 0, 4, -1))
	queues := rapid.OneOf(rapid.StringMatching(`[aZ0._:;$'" -]{0,6}`), rapid.StringMatching(`[aéß]{12,50}`),
		// We refuse names that servers treat differently.
		rapid.Map(rapid.String(), strings.ToLower).Filter(func(s string) bool { return strings.ToLower(s) == s }))
	rapid.Check(t, func(t *rapid.T) {
		requireServerTakes(t, conn, "validate_routing_key", pgmq.ValidateRoutingKey, topics)
		requireServerTakes(t, conn, "validate_topic_pattern", pgmq.ValidateTopicPattern, topics)
		requireServerTakes(t, conn, "validate_queue_name", pgmq.ValidateQueueName, queues)
	})
}

func requireServerTakes(t *rapid.T, conn *pgx.Conn, validator string, validate func(string) error, names *rapid.Generator[string]) {
	batch := rapid.SliceOfN(names, 20, 20).Draw(t, validator)
	batch = slices.DeleteFunc(batch, func(name string) bool { return strings.ContainsRune(name, 0) }) // cannot even be sent
	rows, err := conn.Query(context.Background(), `
		select pg_temp.takes($1::text, t.name)
		from unnest($2::text[]) with ordinality as t (name, position)
		order by t.position`, validator, batch)
	if err != nil {
		t.Fatal(err)
	}
	takes, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range batch {
		if err := validate(name); (err == nil) != takes[i] {
			t.Fatalf("%s(%q): server takes it: %t, client: %v", validator, name, takes[i], err)
		}
	}
}

func TestMatchTopicAgreesWithServer(t *testing.T) {
	t.Parallel()
	conn := serverConn(t)
	if _, err := conn.Exec(t.Context(), `select pgmq.create('q'::text)`); err != nil {
		t.Fatal(err)
	}
	valid := func(validate func(string) error) func(string) bool {
		return func(name string) bool { return validate(name) == nil }
	}
	patterns := rapid.SliceOfNDistinct(
		rapid.StringMatching(`[ab.*#_-]{1,8}`).Filter(valid(pgmq.ValidateTopicPattern)), 15, 15, rapid.ID)
	keys := rapid.SliceOfNDistinct(
		rapid.StringMatching(`[ab.AB_-]{1,8}`).Filter(valid(pgmq.ValidateRoutingKey)), 15, 15, rapid.ID)
	rapid.Check(t, func(t *rapid.T) {
		patterns, keys := patterns.Draw(t, "patterns"), keys.Draw(t, "keys")
		var want, got []string
		for _, key := range keys {
			for _, pattern := range patterns {
				if pgmq.MatchTopic(pattern, key) {
					want = append(want, key+" "+pattern)
				}
			}
		}
		errRollback := errors.New("nothing is to stay")
		err := pgx.BeginFunc(context.Background(), conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), `
				select pgmq.bind_topic(t.pattern, 'q'::text)
				from unnest($1::text[]) as t (pattern)`, patterns)
			if err != nil {
				return err
			}
			rows, err := tx.Query(context.Background(), `
				select t.key || ' ' || r.pattern
				from unnest($1::text[]) as t (key)
				cross join lateral pgmq.test_routing(t.key) as r`, keys)
			if err != nil {
				return err
			}
			if got, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return err
			}
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			t.Fatal(err)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("the server matches %q, the client %q", got, want)
		}
	})
}

// serverConn is a connection of the test's own to a database with PGMQ.
func serverConn(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgmqtest.New(t).DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// requireNameError checks a whole error; an empty rule wants none.
func requireNameError(t *testing.T, err error, want pgmq.NameError, sentinel error) {
	t.Helper()
	if want.Rule == "" {
		if err != nil {
			t.Errorf("%s %q: %v, want no error", want.Kind, want.Name, err)
		}
		return
	}
	var got *pgmq.NameError
	if !errors.As(err, &got) || *got != want || !errors.Is(err, sentinel) {
		t.Errorf("%s %.60q: got %v, want it to break the rule %q", want.Kind, want.Name, err, want.Rule)
		return
	}
	if text := fmt.Sprintf("invalid %s %.100q: it %s", want.Kind, want.Name, want.Rule); got.Error() != text {
		t.Errorf("error reads %q, want %q", got, text)
	}
}

func BenchmarkMatchTopic(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !pgmq.MatchTopic("orders.*.created.#", "orders.eu.created.by.web") {
			b.Fatal("no match")
		}
	}
}
