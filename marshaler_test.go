package watermillpgmq

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// marshalers are all of them; each reads what the others write.
var marshalers = map[string]interface {
	Marshaler
	Unmarshaler
}{"JSON": JSONMarshaler{}, "Exact": ExactMarshaler{}}

func TestMarshal(t *testing.T) {
	t.Parallel()
	const plain = `{"_watermill_message_uuid":"u"}`
	const text = `{"_watermill_message_uuid":"u","_watermill_payload_encoding":"text"}`
	const base64 = `{"_watermill_message_uuid":"u","_watermill_payload_encoding":"base64"}`
	tests := []struct{ payload, jsonBody, jsonHeaders, exactBody, exactHeaders string }{
		{`{"b": 1, "a":"x"}`, `{"b": 1, "a":"x"}`, plain, `"{\"b\": 1, \"a\":\"x\"}"`, text},
		{`null`, `null`, plain, `"null"`, text},
		{`"x"`, `"x"`, plain, `"\"x\""`, text},
		{``, `""`, text, `""`, text},
		{`x`, `"x"`, text, `"x"`, text},
		{"größer\n", `"größer\n"`, text, `"größer\n"`, text},
		{`{"a":1,"a":2}`, `"{\"a\":1,\"a\":2}"`, text, `"{\"a\":1,\"a\":2}"`, text},
		{`"\u0000"`, `"\"\\u0000\""`, text, `"\"\\u0000\""`, text},
		{"\x00", `"AA=="`, base64, `"AA=="`, base64},
		{"\xff\xfe", `"//4="`, base64, `"//4="`, base64},
		{"\x1b\x1b\x1b", `"Gxsb"`, base64, `"Gxsb"`, base64},
	}
	for _, test := range tests {
		msg := message.NewMessage("u", message.Payload(test.payload))
		requireOutgoing(t, JSONMarshaler{}, msg, test.jsonBody, test.jsonHeaders)
		requireOutgoing(t, ExactMarshaler{}, msg, test.exactBody, test.exactHeaders)
	}
	requireOutgoing(t, JSONMarshaler{}, message.NewMessage("u", nil), `""`, text)
}

func TestMarshalMetadata(t *testing.T) {
	t.Parallel()
	const ours = `{"_watermill_message_uuid":"u"`
	tests := []struct{ key, value, headers string }{
		{"name", "Zoë \"Z\"", ours + `,"name":"Zoë \"Z\""}`},
		{"", "", ours + `,"":""}`},
		{"line\nbreak", "\u2028\x01", ours + `,"line\nbreak":"` + "\u2028" + `\u0001"}`},
		{"_watermill_delayed_for", "1s", ours + `,"_watermill_delayed_for":"1s"}`},
		{"\xff", "v", ours + `,"_watermill_metadata_base64":{"/w==":"dg=="}}`},
		{"k", "\x00", ours + `,"_watermill_metadata_base64":{"aw==":"AA=="}}`},
		{"x-pgmq-group", "g", ours + `,"_watermill_metadata_base64":{"eC1wZ21xLWdyb3Vw":"Zw=="}}`},
	}
	for _, test := range tests {
		msg := message.NewMessage("u", message.Payload(`1`))
		msg.Metadata.Set(test.key, test.value)
		requireOutgoing(t, JSONMarshaler{}, msg, `1`, test.headers)
	}
	requireOutgoing(t, JSONMarshaler{}, message.NewMessage("", message.Payload(`1`)), `1`, `{"_watermill_message_uuid":""}`)
	requireOutgoing(t, JSONMarshaler{}, message.NewMessage("\xff", message.Payload(`1`)), `1`,
		`{"_watermill_message_uuid":"","_watermill_message_uuid_base64":"/w=="}`)
}

func requireOutgoing(t *testing.T, marshaler Marshaler, msg *message.Message, body, headers string) {
	t.Helper()
	out, err := marshaler.Marshal("topic", msg)
	if err != nil || string(out.Body) != body || string(out.Headers) != headers {
		t.Errorf("%T: payload %q, metadata %q:\n got %s %s %v\nwant %s %s",
			marshaler, msg.Payload, msg.Metadata, out.Body, out.Headers, err, body, headers)
	}
}

func TestMarshalRefusesWhatPostgresCannotHold(t *testing.T) {
	t.Parallel()
	tooLong := message.NewMessage("u", make(message.Payload, maxString))
	for name, marshaler := range marshalers {
		_, err := marshaler.Marshal("topic", tooLong)
		requireMarshalError(t, name, err, MarshalError{
			Topic: "topic", UUID: "u", Part: "payload",
			Rule: "is 267386880 bytes long; at most 200540160 are allowed, or 267386880 where it is text",
		})
	}
	chatty := message.NewMessage("u", nil)
	chatty.Metadata.Set("k", strings.Repeat("v", maxDocument))
	_, err := JSONMarshaler{}.Marshal("topic", chatty)
	requireMarshalError(t, "metadata", err, MarshalError{
		Topic: "topic", UUID: "u", Part: "metadata",
		Rule: "is 16777291 bytes long as JSON, UUID included; at most 16777216 are allowed",
	})
}

func requireMarshalError(t *testing.T, name string, err error, want MarshalError) {
	t.Helper()
	var got *MarshalError
	if !errors.As(err, &got) || *got != want {
		t.Errorf("%s: got error %v, want %v", name, err, &want)
	}
}

func TestUnmarshalForeign(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body, headers string // "" is SQL NULL
		payload       string
		metadata      message.Metadata
	}{
		"nothing":           {"", "", "", message.Metadata{}},
		"document":          {`{"a": 1}`, "", `{"a": 1}`, message.Metadata{}},
		"no headers":        {`1`, `{}`, `1`, message.Metadata{}},
		"null headers":      {`1`, `null`, `1`, message.Metadata{}},
		"string":            {`"x"`, `{"k": "v", "l": ""}`, `"x"`, message.Metadata{"k": "v", "l": ""}},
		"escapes":           {`1`, `{"\n": "\"\\"}`, `1`, message.Metadata{"\n": `"\`}},
		"JSON in a string":  {`1`, `{"k": "{\"a\": 1}"}`, `1`, message.Metadata{"k": `{"a": 1}`}},
		"group":             {`1`, `{"k": "v", "x-pgmq-group": "g"}`, `1`, message.Metadata{"k": "v", "x-pgmq-group": "g"}},
		"group of a number": {`1`, `{"x-pgmq-group": 7}`, `1`, message.Metadata{"x-pgmq-group": "7"}},
		"other values": {
			`1`, `{"a": 1.50, "b": true, "c": null, "d": {"e": ["\"", {}]}, "f": "text\t"}`, `1`,
			message.Metadata{"a": "1.50", "b": "true", "c": "null", "d": `{"e": ["\"", {}]}`, "f": "text\t"},
		},
		"payload encoding": {`"QQ=="`, `{"_watermill_payload_encoding": "base64"}`, `A`, message.Metadata{}},
	}
	for name, test := range tests {
		for marshaler, unmarshaler := range marshalers {
			got, err := unmarshaler.Unmarshal("Orders", incoming(7, test.body, test.headers))
			if err != nil {
				t.Errorf("%s, %s: %v", name, marshaler, err)
				continue
			}
			if string(got.Payload) != test.payload || (got.Payload == nil) != (test.body == "") || !maps.Equal(got.Metadata, test.metadata) {
				t.Errorf("%s, %s: got %q %q, want %q %q", name, marshaler, got.Payload, got.Metadata, test.payload, test.metadata)
			}
			// The UUID is a promise: it must not change from one release to the next.
			if want := "7f438327-7cf4-5357-b19e-f61159c427ad"; got.UUID != want {
				t.Errorf("%s, %s: UUID %s, want %s", name, marshaler, got.UUID, want)
			}
		}
	}
}

func TestForeignUUIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, queue := range []string{"a", "a/1", "b", ""} {
		for _, id := range []int64{1, 2, 11, 1<<63 - 1} {
			name := fmt.Sprintf("%s %d", queue, id)
			if other, ok := seen[foreignUUID(queue, id)]; ok {
				t.Errorf("%s and %s share a UUID", name, other)
			}
			seen[foreignUUID(queue, id)] = name
		}
	}
	if foreignUUID("Orders", 1) != foreignUUID("orders", 1) {
		t.Error("one queue, two UUIDs")
	}
}

func TestUnmarshalOurs(t *testing.T) {
	t.Parallel()
	got, err := JSONMarshaler{}.Unmarshal("q", incoming(1, `{"a": 1}`,
		`{"k": "v", "x-pgmq-group": "g", "_watermill_message_uuid": "u", "_watermill_metadata_base64": {"/w==": "", "": "AA=="}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := message.Metadata{"k": "v", "\xff": "", "": "\x00"} // the group is not metadata
	if got.UUID != "u" || !maps.Equal(got.Metadata, want) {
		t.Errorf("got %q %q, want %q %q", got.UUID, got.Metadata, "u", want)
	}
}

// Other senders may name the UUID in base64 only.
func TestUnmarshalUUIDInBase64(t *testing.T) {
	t.Parallel()
	got, err := JSONMarshaler{}.Unmarshal("q", incoming(1, `1`, `{"_watermill_message_uuid_base64": "/w=="}`))
	if err != nil || got.UUID != "\xff" {
		t.Errorf("got %v, %v, want the UUID \\xff", got, err)
	}
}

// The payload shares memory with the body, and growing it must not write there.
func TestUnmarshalPayloadIsClipped(t *testing.T) {
	t.Parallel()
	in := incoming(1, `"text"`, `{"_watermill_payload_encoding": "text"}`)
	got, err := JSONMarshaler{}.Unmarshal("q", in)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(got.Payload, '!')
	if string(in.Body) != `"text"` {
		t.Errorf("the body became %s", in.Body)
	}
}

func TestUnmarshalRefusesMalformedMessages(t *testing.T) {
	t.Parallel()
	const text, base64 = `{"_watermill_payload_encoding": "text"}`, `{"_watermill_payload_encoding": "base64"}`
	const encoding = "_watermill_payload_encoding"
	tests := []struct{ body, headers, part, rule string }{
		{`1`, `{"_watermill_payload_encoding": "gzip"}`, encoding, `is "gzip"; known are text and base64`},
		{`1`, `{"_watermill_payload_encoding": ""}`, encoding, `is ""; known are text and base64`},
		{`1`, `{"_watermill_payload_encoding": 1}`, encoding, "is not a string"},
		{`1`, text, "body", "is not a string, though the header " + encoding + " says so"},
		{`{"a": "b"}`, text, "body", "is not a string, though the header " + encoding + " says so"},
		{``, base64, "body", "is not a string, though the header " + encoding + " says so"},
		{`null`, base64, "body", "is not a string, though the header " + encoding + " says so"},
		{`"`, text, "body", "is not a string, though the header " + encoding + " says so"},
		{`"\ud800"`, text, "body", "is not a JSON string"},
		{`"QQ="`, base64, "body", "is not base64, though the header " + encoding + " says so"},
		{`"QR=="`, base64, "body", "is not base64, though the header " + encoding + " says so"},
		{`"Q Q="`, base64, "body", "is not base64, though the header " + encoding + " says so"},
		{`1`, `{"_watermill_message_uuid": 1}`, "_watermill_message_uuid", "is not a string"},
		{`1`, `{"_watermill_message_uuid": null}`, "_watermill_message_uuid", "is not a string"},
		{`1`, `{"_watermill_message_uuid_base64": "%"}`, "_watermill_message_uuid_base64", "is not base64"},
		{`1`, `{"_watermill_message_uuid_base64": []}`, "_watermill_message_uuid_base64", "is not a string"},
		{`1`, `{"_watermill_metadata_base64": "QQ=="}`, "_watermill_metadata_base64", "is not an object of base64 strings"},
		{`1`, `{"_watermill_metadata_base64": {"QQ==": 1}}`, "_watermill_metadata_base64", "is not an object of base64 strings"},
		{`1`, `{"_watermill_metadata_base64": {"QQ==": "A"}}`, "_watermill_metadata_base64", "is not an object of base64 strings"},
		{`1`, `{"_watermill_metadata_base64": {"A": "QQ=="}}`, "_watermill_metadata_base64", "is not an object of base64 strings"},
		{`1`, `[]`, "headers", "are not a JSON object"},
		{`1`, `"x"`, "headers", "are not a JSON object"},
		{`1`, `{"a": }`, "headers", "are not a JSON object"},
		{`1`, `{"a": "b", }`, "headers", "are not a JSON object"},
		{`1`, ` }`, "headers", "are not a JSON object"},
		{`1`, `{"a": "b"} x`, "headers", "are not a JSON object"},
		{`1`, `{"a": "b`, "headers", "are not a JSON object"},
	}
	for _, test := range tests {
		want := UnmarshalError{Queue: "q", ID: 3, Part: test.part, Rule: test.rule}
		for name, unmarshaler := range marshalers {
			msg, err := unmarshaler.Unmarshal("q", incoming(3, test.body, test.headers))
			var got *UnmarshalError
			if !errors.As(err, &got) || *got != want || msg != nil {
				t.Errorf("%s: %s with %s: got %v, %v, want %v", name, test.body, test.headers, msg, err, &want)
			}
		}
	}
}

// incoming is a message as a queue returns it. Empty is SQL NULL.
func incoming(id int64, body, headers string) pgmq.Message {
	msg := pgmq.Message{ID: id}
	if body != "" {
		msg.Body = json.RawMessage(body)
	}
	if headers != "" {
		msg.Headers = json.RawMessage(headers)
	}
	return msg
}

func TestMarshalRoundTripProperty(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	rapid.Check(t, func(t *rapid.T) {
		requireRoundTrip(t, db.Pool, rapid.SliceOfN(anyMessage(), 20, 20).Draw(t, "messages")...)
	})
}

// anyMessage generates messages of every kind of payload, UUID and metadata.
func anyMessage() *rapid.Generator[*message.Message] {
	bytesAsString := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) })
	text := rapid.OneOf(rapid.String(), bytesAsString, rapid.StringMatching(`[a-z"\\\n]{0,20}`))
	key := rapid.OneOf(text, rapid.SampledFrom([]string{
		"", UUIDHeader, UUIDBase64Header, PayloadEncodingHeader, MetadataBase64Header, pgmq.GroupHeader, "_watermill_delayed_for",
	}))
	return rapid.Custom(func(t *rapid.T) *message.Message {
		msg := message.NewMessage(text.Draw(t, "uuid"), nil)
		msg.Metadata = rapid.MapOfN(key, text, 0, 6).Draw(t, "metadata")
		if payload := rapid.OneOf(text, jsonText(2)).Draw(t, "payload"); payload != "" {
			msg.Payload = message.Payload(payload)
		}
		return msg
	})
}

// Long keys and values have no limit of their own.
func TestMarshalRoundTripOfLongStrings(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	long := strings.Repeat("long ", 50_000)
	msg := message.NewMessage(long, message.Payload(long))
	msg.Metadata.Set(long, long)
	msg.Metadata.Set("\xff"+long, long)
	requireRoundTrip(t, db.Pool, msg)
}

func FuzzMarshalRoundTrip(f *testing.F) {
	f.Add([]byte(`{"a": [1, "x"]}`), "8f2b6d0c-3f3e-4a55-9d52-0c8f5b1f7a10", "key", "value")
	f.Add([]byte("not JSON"), "", "", "")
	f.Add([]byte(`{"a":1,"a":2}`), "\xff", "\x00", "\xff")
	f.Add([]byte("\x00\x01"), "\x00", UUIDHeader, MetadataBase64Header)
	f.Add([]byte(`"\ud800"`), `"\`, pgmq.GroupHeader, "\u2028\n")
	f.Add([]byte(nil), "u", PayloadEncodingHeader, "gzip")
	db := pgmqtest.NewEmpty(f)
	f.Fuzz(func(t *testing.T, payload []byte, uuid, key, value string) {
		msg := message.NewMessage(uuid, payload)
		msg.Metadata.Set(key, value)
		msg.Metadata.Set("other", key)
		requireRoundTrip(t, db.Pool, msg)
	})
}

// requireRoundTrip checks that messages survive: marshaled by every marshaler, through jsonb, unmarshaled by every.
func requireRoundTrip(t fataler, pool *pgxpool.Pool, messages ...*message.Message) {
	t.Helper()
	for writer, marshaler := range marshalers {
		var texts []string
		for _, msg := range messages {
			out, err := marshaler.Marshal("topic", msg)
			if err != nil {
				t.Fatalf("%s: %v", writer, err)
			}
			texts = append(texts, string(out.Body), string(out.Headers))
		}
		texts, err := throughJSONB(pool, texts...)
		if err != nil {
			t.Fatalf("Postgres refuses what %s wrote: %v\n%q", writer, err, messages)
		}
		for reader, unmarshaler := range marshalers {
			for i, msg := range messages {
				in := incoming(1, texts[2*i], texts[2*i+1])
				got, err := unmarshaler.Unmarshal("queue", in)
				if err != nil {
					t.Fatalf("%s to %s: %v", writer, reader, err)
				}
				requireSameMessage(t, got, msg, writer == "Exact")
			}
		}
	}
}

// requireSameMessage compares payloads by value where they may be documents, and by bytes otherwise.
func requireSameMessage(t fataler, got, want *message.Message, exact bool) {
	t.Helper()
	samePayload := bytes.Equal(got.Payload, want.Payload)
	if !exact {
		samePayload = samePayload || sameValue(string(got.Payload), string(want.Payload))
	}
	if got.UUID != want.UUID || !maps.Equal(got.Metadata, want.Metadata) || !samePayload {
		t.Fatalf("got %q %q %q, want %q %q %q", got.UUID, got.Payload, got.Metadata, want.UUID, want.Payload, want.Metadata)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`"QQ=="`), []byte(`{"a": "b", "_watermill_payload_encoding": "base64"}`))
	f.Add([]byte(`1`), []byte(`{"a": [1, "\n"], "_watermill_metadata_base64": {"QQ==": "QQ=="}}`))
	f.Add([]byte(`1`), []byte(`{ }`))
	f.Add([]byte(`1`), []byte(`  }`))
	f.Fuzz(func(t *testing.T, body, headers []byte) {
		msg, err := JSONMarshaler{}.Unmarshal("q", pgmq.Message{Body: body, Headers: headers})
		if (msg == nil) != (err != nil) {
			t.Fatalf("got %v and %v", msg, err)
		}
		// The fast scanner must see what encoding/json sees.
		members := map[string]string{}
		s := memberScanner{text: string(headers)}
		for s.next() {
			members[s.key] = s.value
		}
		if !s.complete() || !utf8.Valid(headers) || bytes.ContainsFunc(headers, func(r rune) bool { return r < ' ' }) {
			return // nothing that Postgres prints
		}
		var want map[string]string
		if err := json.Unmarshal(headers, &want); err != nil || !maps.Equal(members, want) {
			t.Fatalf("scanner sees %q in %q, encoding/json %q, %v", members, headers, want, err)
		}
	})
}

func benchmarkMessage() *message.Message {
	msg := message.NewMessage("8f2b6d0c-3f3e-4a55-9d52-0c8f5b1f7a10", message.Payload(benchmarkPayload))
	msg.Metadata.Set("correlation_id", "b5b1d2f0-7a33-4c5e-8f38-6f1f5c3b9d21")
	msg.Metadata.Set("name", "OrderPlaced")
	return msg
}

func BenchmarkJSONMarshal(b *testing.B)  { benchmarkMarshal(b, JSONMarshaler{}) }
func BenchmarkExactMarshal(b *testing.B) { benchmarkMarshal(b, ExactMarshaler{}) }

func benchmarkMarshal(b *testing.B, marshaler Marshaler) {
	b.Helper()
	msg := benchmarkMessage()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := marshaler.Marshal("orders.placed", msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSONUnmarshal(b *testing.B)  { benchmarkUnmarshal(b, JSONMarshaler{}) }
func BenchmarkExactUnmarshal(b *testing.B) { benchmarkUnmarshal(b, ExactMarshaler{}) }

func benchmarkUnmarshal(b *testing.B, marshaler Marshaler) {
	b.Helper()
	out, err := marshaler.Marshal("orders.placed", benchmarkMessage())
	if err != nil {
		b.Fatal(err)
	}
	// As Postgres prints it: with a space behind colons and commas.
	headers := strings.NewReplacer(`":"`, `": "`, `","`, `", "`).Replace(string(out.Headers))
	in := pgmq.Message{ID: 1, Body: out.Body, Headers: json.RawMessage(headers)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (JSONMarshaler{}).Unmarshal("orders.placed:billing", in); err != nil {
			b.Fatal(err)
		}
	}
}

// The largest payloads must fit into the string that they become.
func TestLargestPayloadsFit(t *testing.T) {
	t.Parallel()
	if size := base64.StdEncoding.EncodedLen(base64.StdEncoding.DecodedLen(maxString)); size > maxString {
		t.Errorf("the largest payload takes %d bytes, more than %d", size, maxString)
	}
}
