package schema

import (
	"mime"
	"strings"
)

// media is a media type, or a range of them.
type media struct {
	essence string // type/subtype, in lower case
	params  map[string]string
}

// mediaRange parses a media type of a document. It ignores the charset: everything is UTF-8.
func mediaRange(text string) media {
	essence, params, err := mime.ParseMediaType(text)
	if err != nil {
		essence, _, _ = strings.Cut(strings.ToLower(text), ";")
		return media{essence: strings.TrimSpace(essence)}
	}
	delete(params, "charset")
	return media{essence, params}
}

// matches returns how specifically the range matches a media type; 0 means that it does not match.
func (m media) matches(essence string, params map[string]string) int {
	for name, value := range m.params {
		if !strings.EqualFold(params[name], value) {
			return 0
		}
	}
	kind, _, _ := strings.Cut(essence, "/")
	switch m.essence {
	case essence:
		return 3 + len(m.params)
	case kind + "/*":
		return 2
	case "*/*", "*":
		return 1
	}
	return 0
}

// isJSON accepts the registered type, its suffix, and text/json, which browsers also treat as JSON
// (MIME Sniffing §4.6).
func isJSON(essence string) bool {
	return essence == "application/json" || essence == "text/json" ||
		strings.HasSuffix(essence, "+json")
}

// isJSONRange reports whether a range includes application/json.
func isJSONRange(essence string) bool {
	return essence == "*/*" || essence == "*" || essence == "application/*"
}

// isYAML accepts the registered type and its suffix (RFC 9512), but no ranges.
func isYAML(essence string) bool {
	return essence == "application/yaml" || strings.HasSuffix(essence, "+yaml")
}

func isForm(essence string) bool { return essence == "application/x-www-form-urlencoded" }

func isMultipart(essence string) bool { return strings.HasPrefix(essence, "multipart/") }
