package watermillpgmq

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestAppendJSONString(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"":                  `""`,
		"plain":             `"plain"`,
		"\"\\/\b\f\n\r\t":   `"\"\\/\b\f\n\r\t"`,
		"\x00\x01\x1f\x7f":  `"\u0000\u0001\u001f` + "\x7f\"",
		"é\u2028\u2029<&>😀": "\"é\u2028\u2029<&>😀\"",
	}
	for text, want := range tests {
		if got := string(appendJSONString([]byte("x"), text)); got != "x"+want {
			t.Errorf("appendJSONString(%q) = %s, want %s", text, got[1:], want)
		}
	}
}

func TestAppendUnescapedRefuses(t *testing.T) {
	t.Parallel()
	for _, inside := range []string{
		`\`, `\x`, `\u`, `\u12`, `\u12g4`, `"`, `"n`, "\n", "\nn", "\x00",
		`\ud800`, `\ud800x`, `\ud800\`, `\ud800\n`, `\ud800\u12`, `\ud800\ud800`, `\ud800\u0041`, `\udc00`, `\udc00\ud800`,
	} {
		if got, ok := appendUnescaped(nil, inside); ok {
			t.Errorf("appendUnescaped(%q) = %q, want it refused", inside, got)
		}
	}
}

// Strings are written and read as encoding/json does, and the size of what is written is known before.
func TestJSONStringProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		quoted := appendJSONString(nil, text)
		var decoded string
		if err := json.Unmarshal(quoted, &decoded); err != nil || decoded != text {
			t.Fatalf("appendJSONString(%q) = %s, which encoding/json reads as %q, %v", text, quoted, decoded, err)
		}
		escapes := strings.NewReplacer("z", `\u007a`, "é", `\u00E9`, "😀", `\uD83d\uDe00`, "/", `\/`)
		standard, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{string(quoted), string(standard), escapes.Replace(string(quoted))} {
			got, ok := appendUnescaped([]byte("x"), form[1:len(form)-1])
			if !ok || string(got) != "x"+text {
				t.Fatalf("appendUnescaped(%s) = %q, %t, want %q", form, got, ok, text)
			}
		}
		size, ok := textSize([]byte(text))
		if ok && size != len(quoted) {
			t.Fatalf("textSize(%q) = %d, but it takes %d", text, size, len(quoted))
		}
	})
}

func FuzzAppendUnescaped(f *testing.F) {
	for _, inside := range []string{"", "a", `\n\"\\\/`, `\u00e9\ud83d\ude00`, `\ud83d`, `\udc00\u0000`, "\xff", `\`} {
		f.Add(inside)
	}
	f.Fuzz(func(t *testing.T, inside string) {
		got, ok := appendUnescaped(nil, inside)
		var want string
		err := json.Unmarshal([]byte(`"`+inside+`"`), &want)
		// Where encoding/json puts U+FFFD in the place of half a surrogate or of bytes that are not UTF-8, it
		// differs by design.
		switch {
		case ok && err != nil:
			t.Fatalf("appendUnescaped(%q) = %q, but %v", inside, got, err)
		case ok && utf8.ValidString(inside) && string(got) != want:
			t.Fatalf("appendUnescaped(%q) = %q, want %q", inside, got, want)
		case !ok && err == nil && !strings.ContainsRune(want, utf8.RuneError):
			t.Fatalf("appendUnescaped(%q) is refused, want %q", inside, want)
		}
	})
}
