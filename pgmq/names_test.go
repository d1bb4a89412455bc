package pgmq

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidateQueueName(t *testing.T) {
	t.Parallel()
	valid := []string{
		"q", "orders", "orders.created:billing", "a-b.c", "a- -b", "MixedCase", "orders.*", "über", `a"b`, "a b", "1",
		strings.Repeat("n", 47), "orders~0123456789abcdef",
	}
	for _, name := range valid {
		if err := ValidateQueueName(name); err != nil {
			t.Errorf("ValidateQueueName(%q) = %v, want nil", name, err)
		}
	}
	invalid := map[string]string{
		"":                        "is empty",
		strings.Repeat("n", 48):   "is 48 bytes long; at most 47 are allowed",
		strings.Repeat("ü", 24):   "is 48 bytes long; at most 47 are allowed",
		strings.Repeat("n", 5000): "is 5000 bytes long; at most 47 are allowed",
		"a$b":                     "contains one of $ ; ' NUL",
		"a;b":                     "contains one of $ ; ' NUL",
		"a'b":                     "contains one of $ ; ' NUL",
		"a\x00b":                  "contains one of $ ; ' NUL",
		"a--b":                    "contains --",
		"--":                      "contains --",
		"a\xff":                   "is not valid UTF-8",
	}
	for name, rule := range invalid {
		requireNameError(t, ValidateQueueName(name), NameError{Kind: "queue name", Name: name, Rule: rule}, ErrInvalidQueueName)
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
		requireNameError(t, ValidateRoutingKey(topic),
			NameError{Kind: "routing key", Name: topic, Rule: broken.key}, ErrInvalidTopic)
		requireNameError(t, ValidateTopicPattern(topic),
			NameError{Kind: "topic pattern", Name: topic, Rule: broken.pattern}, ErrInvalidTopic)
	}
}

func TestNameErrorIsShort(t *testing.T) {
	t.Parallel()
	err := ValidateQueueName(strings.Repeat("n", 100_000))
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
		if got := MatchTopic(test.pattern, test.key); got != test.want {
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
		if got := MatchTopic(pattern, key); got != want {
			t.Fatalf("MatchTopic(%q, %q) = %t, want %t", pattern, key, got, want)
		}
	})
}

func topicExpression(pattern string) *regexp.Regexp {
	expression := strings.NewReplacer(`\*`, `[^.]+`, "#", `.*`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^" + expression + "$")
}

// requireNameError checks a whole error; an empty rule wants none.
func requireNameError(t *testing.T, err error, want NameError, sentinel error) {
	t.Helper()
	if want.Rule == "" {
		if err != nil {
			t.Errorf("%s %q: %v, want no error", want.Kind, want.Name, err)
		}
		return
	}
	var got *NameError
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
		if !MatchTopic("orders.*.created.#", "orders.eu.created.by.web") {
			b.Fatal("no match")
		}
	}
}
