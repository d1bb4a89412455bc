package watermillpgmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// kept are texts that jsonb is to keep, up to the limits.
var kept = []string{
	`null`, `true`, `false`, `0`, `""`, `[]`, `{}`, ` { } `, " [ ]\r\n\t", `"x"`, ` 1 `,
	`{"a":{"a":{"a":[]}},"b":[{"a":1},{"a":2}]}`, `[1 , 2,3 ]`, `{ "a" : 1 , "b" : [ true , false , null ] }`,
	`{"":""}`, `{"A":1,"a":2}`, `{"a":1,"a ":2}`,
	`"\"\\\/\b\f\n\r\t\u0001\u001f\u2028\uFFFF"`, `"\ud83d\ude00"`, "\"\u2028\U0010ffff\x7f\"", `"\\u0000"`, `{"\\u0000":1}`,
	`-1`, `0.0`, `0.00`, `-0.5`, `1e5`, `1E+5`, `1e-5`, `1.50e1`, `0e5`, `123456789012345678901234567890.123456789012345678901234567890`,
	`1.7976931348623157e308`, `5e-324`, `-1e-400`, `[1.0,1.00,10e-1]`,
	`1e131071`, `-9.99e131071`, `1e-16383`, `0e131071`, `1.5e-16382`, `0e-16382`,
	strings.Repeat("9", maxWholeDigits), "0." + strings.Repeat("1", maxFractionDigits),
	strings.Repeat("9", maxWholeDigits) + "." + strings.Repeat("9", maxFractionDigits),
	`[1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071]`,
	nested("[", "]", maxDepth), nested(`{"a":`, "}", maxDepth),
	members(13), members(5000),
}

// changed are texts that jsonb would refuse, or give back with another value.
var changed = []string{
	``, ` `, `x`, `{`, `[1,]`, `{"a":1,}`, `{"a"}`, `[1}`, `[1 2]`, `[1`, `[1,`, `{"a":1]`, `{"a":1 "b":2}`, `{"a" 1}`, `{"a":1`, `{"a":}`, `{a:1}`, `[,1]`, `[]]`, `1e`, `1e+`, `-`, `"`, `"\`,
	"1\x00", "\x00", `01`, `1.`, `.5`, `+1`, `NaN`, `Infinity`, `nul`, `1 2`, `'a'`, "\"\n\"", `"\x"`,
	`"\u12"`, "\xef\xbb\xbf1", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "{\"\xff\":1}",
	`"\u0000"`, `"a\u0000b"`, `{"\u0000":1}`, `[{"a":["\u0000"]}]`, `"\\\u0000"`, "\"\x00\"",
	`"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\n"`, `"\ud800\ud800"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `{"\ud800":1}`, `"\ud83d\\ude00"`,
	`{"a":1,"a":1}`, `{"a":1,"b":2,"a":3}`, `{"a":1,"\u0061":2}`, `[{"b":{"":1,"":2}}]`, `{"/":1,"\/":2}`, `{"\ud83d\ude00":1,"😀":2}`,
	strings.Replace(members(13), `"k12"`, `"k0"`, 1), strings.Replace(members(5000), `"k4999"`, `"k2500"`, 1),
	`-0`, `-0.0`, `-0e5`, `-0.000e-3`, `[1,-0]`,
	`1e131072`, `1e200000`, `1e-16384`, `1e-20000`, `1.5e-16383`, `0e-16384`, `1e99999999999999999999`, `1e9223372036854775807`, `0e-9223372036854775808`, `0e-99999999999`,
	strings.Repeat("9", maxWholeDigits+1), "0." + strings.Repeat("1", maxFractionDigits+1),
	`[1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071]`,
	nested("[", "]", maxDepth+1), nested(`{"a":`, "}", maxDepth+1), nested("[", "]", 100_000),
	`"` + strings.Repeat("x", maxDocument) + `"`,
}

func nested(open, end string, depth int) string {
	return strings.Repeat(open, depth-1) + open[:1] + strings.Repeat(end, depth)
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	return "{" + b.String()[1:] + "}"
}

func TestJSONBKeeps(t *testing.T) {
	t.Parallel()
	for _, text := range kept {
		if !jsonbKeeps([]byte(text)) {
			t.Errorf("jsonbKeeps(%.80q) = false, want true", text)
		}
	}
	for _, text := range changed {
		if jsonbKeeps([]byte(text)) {
			t.Errorf("jsonbKeeps(%.80q) = true, want false", text)
		}
	}
}

func TestJSONBKeepsWhatPostgresKeeps(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	requireKept(t, db.Pool, kept...)
}

// The texts that we do not give to jsonb are those that it does not keep, but for the limits that we draw ourselves.
func TestJSONBChangesWhatItIsNotGiven(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	for _, text := range changed {
		if len(text) > maxDocument || strings.HasPrefix(text, "[[") || strings.HasPrefix(text, `{"a":{`) || strings.HasPrefix(text, "[1e131071") {
			continue
		}
		requireNotKept(t, db.Pool, text)
	}
}

// Messages are read and written within functions and with little stack left: the depth must be far from the limit.
func TestJSONBDepthNeedsLittleStack(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	config := db.Pool.Config()
	config.ConnConfig.RuntimeParams["max_stack_depth"] = "500kB" // the default is 2 MB
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	requireKept(t, pool, nested("[", "]", maxDepth), nested(`{"a":`, "}", maxDepth))
}

func TestJSONBKeepsProperty(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	rapid.Check(t, func(t *rapid.T) {
		// Many texts at a time: a round trip to the server costs more than the check.
		var accepted []string
		texts := rapid.SliceOfN(jsonText(3), 25, 25).Draw(t, "texts")
		// One number at the limits of numeric is enough: it has more digits than all the rest.
		texts = append(texts, rapid.StringMatching(`-?[0-9]\.[0-9]e(-1638[0-4]|13107[0-3])`).Draw(t, "number"))
		for _, text := range texts {
			switch {
			case jsonbKeeps([]byte(text)):
				accepted = append(accepted, text)
			case strings.Contains(text, "e1310"): // digits are counted by excess
			default:
				requireNotKept(t, db.Pool, text)
			}
		}
		requireKept(t, db.Pool, accepted...)
	})
}

// jsonText generates JSON of a kind that is near the borders of what jsonb keeps, some of it invalid.
func jsonText(depth int) *rapid.Generator[string] {
	space := rapid.SampledFrom([]string{"", "", "", "", " ", "\n\t"})
	character := rapid.SampledFrom([]string{
		"a", "b", "A", " ", "é", "\u2028", "😀", "\x7f", `\n`, `\"`, `\\`, `\/`, `\u0061`, `\u00e9`, `\ud83d\ude00`, `\u0001`,
	})
	rare := rapid.SampledFrom([]string{`\u0000`, `\ud800`, `\udc00`, "\xff", "\x00", "\n", `\x`})
	text := rapid.Custom(func(t *rapid.T) string {
		s := strings.Join(rapid.SliceOfN(character, 0, 4).Draw(t, "characters"), "")
		if rapid.IntRange(0, 99).Draw(t, "rare") == 0 {
			s += rare.Draw(t, "character")
		}
		return `"` + s + `"`
	})
	number := rapid.OneOf(
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`),
		rapid.Map(rapid.Float64(), func(f float64) string { data, _ := json.Marshal(f); return string(data) }),
	)
	scalar := rapid.OneOf(text, number, rapid.SampledFrom([]string{"true", "false", "null"}))
	if depth == 0 {
		return scalar
	}
	return rapid.Custom(func(t *rapid.T) string {
		pad := func(s string) string { return space.Draw(t, "space") + s + space.Draw(t, "space") }
		var parts []string
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			for range rapid.IntRange(0, 5).Draw(t, "elements") {
				parts = append(parts, pad(jsonText(depth-1).Draw(t, "element")))
			}
			return pad("[" + strings.Join(parts, ",") + space.Draw(t, "space") + "]")
		case 1, 2:
			for range rapid.IntRange(0, 15).Draw(t, "members") {
				parts = append(parts, pad(text.Draw(t, "key"))+":"+pad(jsonText(depth-1).Draw(t, "value")))
			}
			return pad("{" + strings.Join(parts, ",") + space.Draw(t, "space") + "}")
		}
		return pad(scalar.Draw(t, "scalar"))
	})
}

func FuzzJSONBRoundTrip(f *testing.F) {
	for _, text := range slices.Concat(kept, changed) {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	db := pgmqtest.NewEmpty(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		if jsonbKeeps(text) {
			if !json.Valid(text) {
				t.Fatalf("jsonbKeeps(%q) although it is not JSON", text)
			}
			requireKept(t, db.Pool, string(text))
		}
		if !bytes.Equal(before, text) {
			t.Fatalf("jsonbKeeps(%q) wrote to its argument: %q", before, text)
		}
	})
}

// requireKept checks that Postgres takes every text as jsonb and gives it back equal in value.
func requireKept(t fataler, pool *pgxpool.Pool, texts ...string) {
	t.Helper()
	if len(texts) == 0 {
		return
	}
	got, err := throughJSONB(pool, texts...)
	if err != nil {
		t.Fatalf("Postgres refuses one of %.500q: %v", texts, err)
	}
	for i, text := range texts {
		if !sameValue(text, got[i]) {
			t.Fatalf("jsonb makes %.500q of %.500q", got[i], text)
		}
	}
}

// requireNotKept checks that Postgres refuses a text, or gives it back with another value.
func requireNotKept(t fataler, pool *pgxpool.Pool, text string) {
	t.Helper()
	got, err := throughJSONB(pool, text)
	if err == nil && sameValue(text, got[0]) {
		t.Fatalf("jsonb keeps %.500q as %.500q", text, got[0])
	}
}

// fataler is what *testing.T and *rapid.T have in common here.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// throughJSONB returns what Postgres makes of texts when they become jsonb.
func throughJSONB(pool *pgxpool.Pool, texts ...string) ([]string, error) {
	rows, err := pool.Query(context.Background(), `
		select t.body::jsonb::text
		from unnest($1::text[]) with ordinality as t (body, position)
		order by t.position`, texts)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// sameValue compares JSON by value: members regardless of order, numbers as exact fractions and with the sign of zero.
func sameValue(a, b string) bool {
	left, err := decodeValue(a)
	if err != nil {
		return false
	}
	right, err := decodeValue(b)
	return err == nil && left == right
}

// decodeValue returns JSON in a form in which equal values are equal strings. Members of one name are all kept.
func decodeValue(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	value, err := decodeNext(decoder)
	if err != nil {
		return "", err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("more than one value: %w", err)
	}
	return value, nil
}

func decodeNext(decoder *json.Decoder) (string, error) {
	token, err := decoder.Token()
	if err != nil {
		return "", err
	}
	switch token := token.(type) {
	case json.Delim:
		var parts []string
		for decoder.More() {
			part, err := decodeNext(decoder)
			if err != nil {
				return "", err
			}
			if token == '{' {
				value, err := decodeNext(decoder)
				if err != nil {
					return "", err
				}
				part += ":" + value
			}
			parts = append(parts, part)
		}
		end, err := decoder.Token()
		if token == '{' {
			slices.Sort(parts)
		}
		return fmt.Sprint(token, strings.Join(parts, ","), end), err
	case json.Number:
		return exactNumber(string(token))
	}
	return fmt.Sprintf("%T %q", token, fmt.Sprint(token)), nil
}

// exactNumber returns the significant digits of a JSON number and the power of ten they are multiplied with. (A big.Rat
// of 131,072 digits takes its time.)
func exactNumber(text string) (string, error) {
	digits, power, _ := strings.Cut(strings.ToLower(text), "e")
	exponent := 0
	if power != "" {
		var err error
		if exponent, err = strconv.Atoi(power); err != nil {
			return "", err
		}
	}
	digits, negative := strings.CutPrefix(digits, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	significant := strings.TrimRight(whole+fraction, "0")
	exponent += len(whole) - len(significant)
	significant = strings.TrimLeft(significant, "0")
	if significant == "" {
		exponent = 0
	}
	return fmt.Sprintf("number %t %s e %d", negative, significant, exponent), nil
}

func TestSameValue(t *testing.T) {
	t.Parallel()
	same := [][2]string{
		{"1", "1.0"},
		{"100", "1e2"},
		{"0.01", "1E-2"},
		{"10e-1", "1"},
		{"-120.50", "-1.205e+2"},
		{"0", "0.00"},
		{"0e5", "0"},
		{`{"a":1,"b":[2]}`, ` { "b" : [ 2.0 ] , "a" : 1 } `},
		{`"\u0061\/"`, `"a/"`},
	}
	for _, pair := range same {
		if !sameValue(pair[0], pair[1]) {
			t.Errorf("%s and %s are taken for different", pair[0], pair[1])
		}
	}
	different := [][2]string{
		{"1", "10"},
		{"1", "0.1"},
		{"1", "-1"},
		{"0", "-0"},
		{"1", `"1"`},
		{"101", "11"},
		{"1.01", "1.1"},
		{"null", `"null"`},
		{"[1,2]", "[2,1]"},
		{"[[1],2]", "[[1,2]]"},
		{`{"a":1}`, `{"a":1,"a":1}`},
		{`{"a":1,"b":2}`, `{"a":2,"b":1}`},
		{"[]", "{}"},
		{"1", "1 1"},
		{"x", "x"},
	}
	for _, pair := range different {
		if sameValue(pair[0], pair[1]) {
			t.Errorf("%s and %s are taken for the same", pair[0], pair[1])
		}
	}
}

func BenchmarkJSONBKeeps(b *testing.B) {
	payload := []byte(benchmarkPayload)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if !jsonbKeeps(payload) {
			b.Fatal("not kept")
		}
	}
}

// benchmarkPayload is a document of 256 bytes.
const benchmarkPayload = `{"id":"8f2b6d0c-3f3e-4a55-9d52-0c8f5b1f7a10","customer":{"id":48213,"name":"Zoë Example","vip":false},` +
	`"items":[{"sku":"A-1001","quantity":2,"price":19.99},{"sku":"B-2002","quantity":1,"price":249.5}],` +
	`"total":289.48,"currency":"EUR","note":"no \"rush\""} `
