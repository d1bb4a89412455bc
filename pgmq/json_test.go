package pgmq_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

func FuzzIsJSON(f *testing.F) {
	for _, seed := range []string{
		``, ` `, `null`, `nul`, `true`, `false`, `truex`, `0`, `-0`, `-`, `00`, `01`, `1.`, `.1`, `1.5e+10`, `1e`, `1E-`, `-1.0E5`, `+1`,
		`""`, `"`, `"\`, `"\"`, `"\u12aF"`, `"\u12a"`, `"\x"`, `"\/\b\f\n\r\t\\"`, "\"\x1f\"", "\"\x7f\"", "\"\nn\"", "\"1234567\nn2345678\"", `"ü𝄞"`, "\"\xff\"", "\"\xed\xa0\x80\"",
		`[]`, `[ ]`, `[1,]`, `[,1]`, `[1 2]`, `[1,[2,[3]]]`, `[`, `]`, `[}`,
		`{}`, `{ }`, `{"a":1}`, `{"a":1,}`, `{"a" : 1 , "b" : {} }`, `{"a"}`, `{"a":}`, `{a:1}`, `{1:1}`, `{"a":1]`, `{"a":1 "b":2}`,
		`"eight by eight, plainly"`, `"1234567\n"`, "\"1234567\n12345678\"", `"12345678\`, " \t\r\n{}\n", `{} {}`, "\v1", "\ufeff1", "1\x00", `NaN`, `Infinity`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, want := pgmq.IsJSON(raw), json.Valid(raw) && utf8.Valid(raw); got != want {
			t.Errorf("%.200q: %v, want %v", raw, got, want)
		}
	})
}

func TestIsJSONNested(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
		strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		strings.Repeat(`{"a":[`, 5_001) + strings.Repeat("]}", 5_001),
		strings.Repeat("[", 100_000),
	} {
		if got, want := pgmq.IsJSON([]byte(raw)), json.Valid([]byte(raw)); got != want {
			t.Errorf("%.10q, %d bytes: %v, want %v", raw, len(raw), got, want)
		}
	}
}

func BenchmarkIsJSON(b *testing.B) {
	raw := bytes256()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if !pgmq.IsJSON(raw) {
			b.Fatal("it is")
		}
	}
}
