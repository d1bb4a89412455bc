package pgmq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// FuzzRoundTrip: what Send takes, and the server does not refuse, comes back equal in value, as a body and
// as headers; a batch keeps it, too.
func FuzzRoundTrip(f *testing.F) {
	for _, seed := range []struct{ body, headers string }{
		{`null`, `{}`},
		{`{"n": 1, "list": [1, 2.50, -0, 1e3], "text": "\"\\/\b\f\n\r\t\u00e9 \ud83d\ude00"}`, `{"x-pgmq-group": "a,b{}\"\\"}`},
		{`12345678901234567890.12345678901234567890`, `{"": {"": []}}`},
		{`{"a": 1, "a": 2}`, "{\"\u2028\": \"NULL\"}"},
		{` [ "{", "}", "\\", "'", "''", "$1", "--", "/*" ] `, "\t{ }\n"},
		{`"\u0000"`, `{"a": "\u0000"}`},
		{`"\ud800"`, `{"a": "\udc00"}`},
		{`1e200000`, `{"a": 1e-200000}`},
		{"\"\xff\"", "{\"\xff\": 1}"},
		{`{`, `[]`},
		{``, `null`},
		{strings.Repeat(`[`, 500) + strings.Repeat(`]`, 500), `{"a": ` + strings.Repeat(`[`, 500) + strings.Repeat(`]`, 500) + `}`},
	} {
		f.Add(seed.body, seed.headers)
	}
	conn := newConn(f, pgmqtest.New(f).DSN)
	newQueue(f, pgmq.New(conn), "q")
	f.Fuzz(func(t *testing.T, body, headers string) {
		msg := pgmq.Outgoing{Body: json.RawMessage(body), Headers: json.RawMessage(headers)}
		tx, err := conn.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }() // the queue stays empty
		if sent(t, tx, msg) {
			c := pgmq.New(tx)
			if _, err := c.SendBatch(t.Context(), "q", []pgmq.Outgoing{msg, {}, msg}); err != nil {
				t.Fatalf("a batch is refused: %v", err)
			}
			msgs, err := c.Read(t.Context(), "q", 0, pgmq.Limit(4))
			if err != nil || len(msgs) != 4 {
				t.Fatalf("read %d messages, %v", len(msgs), err)
			}
			for _, i := range []int{0, 1, 3} {
				requireSameJSON(t, msg.Body, msgs[i].Body)
				requireSameJSON(t, msg.Headers, msgs[i].Headers)
			}
			if msgs[2].Body != nil || msgs[2].Headers != nil {
				t.Errorf("SQL NULL came back as %s, %s", msgs[2].Body, msgs[2].Headers)
			}
		}
	})
}

// sent is false where the message is refused: by the client because it is not JSON, else by the server.
func sent(t *testing.T, tx pgx.Tx, msg pgmq.Outgoing) bool {
	t.Helper()
	object := map[string]any{}
	valid := json.Valid(msg.Body) && json.Unmarshal(msg.Headers, &object) == nil && object != nil
	_, err := pgmq.New(tx).Send(t.Context(), "q", msg)
	if err == nil && !valid {
		t.Fatalf("%q with headers %q was sent", msg.Body, msg.Headers)
	}
	return err == nil
}

// requireSameJSON compares values; of members with the same name the last one counts, as in jsonb.
func requireSameJSON(t *testing.T, want, got []byte) {
	t.Helper()
	if a, b := jsonValue(t, want), jsonValue(t, got); !reflect.DeepEqual(a, b) {
		t.Errorf("sent %s, got %s", want, got)
	}
}

func jsonValue(t *testing.T, text []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return exactNumbers(v)
}

func exactNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		exact, ok := new(big.Rat).SetString(string(v))
		if !ok {
			return v
		}
		return exact.RatString()
	case []any:
		for i := range v {
			v[i] = exactNumbers(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = exactNumbers(v[name])
		}
	}
	return v
}

func TestSendRefuses(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	long := `"` + strings.Repeat("x", 100)
	for name, tt := range map[string]struct {
		msg  pgmq.Outgoing
		want pgmq.ValueError
	}{
		"no JSON":              {body(`{`), pgmq.ValueError{Name: "message", Value: "\"{\"", Rule: "valid JSON"}},
		"two values":           {body(`1 2`), pgmq.ValueError{Name: "message", Value: `"1 2"`, Rule: "valid JSON"}},
		"empty":                {body(``), pgmq.ValueError{Name: "message", Value: `""`, Rule: "valid JSON"}},
		"no UTF-8":             {body("\"\xff\""), pgmq.ValueError{Name: "message", Value: `"\"\xff\""`, Rule: "valid JSON"}},
		"long":                 {body(long), pgmq.ValueError{Name: "message", Value: `"\"` + long[1:60] + `"... (101 bytes)`, Rule: "valid JSON"}},
		"headers no object":    {pgmq.Outgoing{Headers: []byte(`[1]`)}, pgmq.ValueError{Name: "headers", Value: `"[1]"`, Rule: "a JSON object"}},
		"headers null":         {pgmq.Outgoing{Headers: []byte(`null`)}, pgmq.ValueError{Name: "headers", Value: `"null"`, Rule: "a JSON object"}},
		"headers no JSON":      {pgmq.Outgoing{Headers: []byte(`{`)}, pgmq.ValueError{Name: "headers", Value: "\"{\"", Rule: "a JSON object"}},
		"headers of no object": {pgmq.Outgoing{Headers: []byte(`"{}"`)}, pgmq.ValueError{Name: "headers", Value: `"\"{}\""`, Rule: "a JSON object"}},
	} {
		_, err := c.Send(t.Context(), "q", tt.msg)
		requireValueError(t, "Send, "+name, err, tt.want)
		_, err = c.SendBatch(t.Context(), "q", []pgmq.Outgoing{body(`1`), tt.msg})
		requireValueError(t, "SendBatch, "+name, err, tt.want)
		_, err = c.SendTopic(t.Context(), "a", tt.msg)
		requireValueError(t, "SendTopic, "+name, err, tt.want)
	}
}
