package schema

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// appendPairs parses a query or an urlencoded form. It reports false if url.ParseQuery would fail.
func appendPairs(all []pair, text string) (_ []pair, ok bool) {
	for text != "" {
		var part string
		if part, text, _ = strings.Cut(text, "&"); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || strings.Contains(part, ";") {
			return nil, false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, false
		}
		all = append(all, pair{name, value})
	}
	return all, true
}

func encodePairs(all []pair) string {
	var b strings.Builder
	for i, p := range all {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(p.name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(p.value))
	}
	return b.String()
}

// exploded reports whether each member of an object is a separate query parameter or cookie.
func (p *parameter) exploded() bool {
	return p.content == "" && p.explode && p.style == "form" && p.shape.is(kindObject)
}

// repeated reports whether each element of a list is a separate occurrence of the parameter.
func (p *parameter) repeated() bool {
	return p.content == "" && p.explode && p.style != "deepObject" && p.shape.is(kindArray)
}

// includes reports whether the parameter includes query parameters with this name.
func (p *parameter) includes(name string) bool {
	switch {
	case p.style == "deepObject" && p.content == "":
		root, rest, found := strings.Cut(name, "[")
		if !found || root != p.name {
			return false
		}
		member, _, _ := strings.Cut(rest, "]")
		_, known := p.shape.member(member)
		return known
	case p.exploded():
		_, known := p.shape.members[name]
		return known
	}
	return name == p.name
}

// checkQuery validates the query parameters of a request. It returns the query to bind.
func (o *Operation) checkQuery(raw string, reader *reader, faults *faults) string {
	if raw == "" && len(o.query) == 0 {
		return raw
	}
	var few [8]pair
	all, ok := appendPairs(few[:0], raw)
	if !ok {
		faults.add(queryFault("syntax", "is malformed"))
		return raw
	}
	var owned [8]*parameter
	owners := owned[:0]
	for _, q := range all {
		owner := o.owner(q.name)
		if owner == nil {
			faults.add(undeclared())
			return raw
		}
		owners = append(owners, owner)
	}
	var boundFew [8]pair
	bound, same := boundFew[:0], true
	for _, p := range o.query {
		first, count := -1, 0
		for i := range all {
			if owners[i] == p {
				if count++; first < 0 {
					first = i
				}
			}
		}
		if p.scalar && count == 1 && !p.empty {
			text, err := reader.scalar(p, all[first].value)
			faults.add(err)
			same = same && text == all[first].value
			bound = append(bound, pair{p.name, text})
			continue
		}
		mine := make([]pair, 0, count)
		for i, q := range all {
			if owners[i] == p {
				mine = append(mine, q)
			}
		}
		pairs, err := p.checkPairs(mine, &reader.run.spent)
		faults.add(err)
		same = same && slices.Equal(pairs, mine)
		bound = append(bound, pairs...)
	}
	if same {
		return raw
	}
	return encodePairs(bound)
}

func undeclared() error {
	return queryFault("parameters", "has a parameter that this operation does not declare")
}

// queryFault returns the error for a query that is invalid as a whole.
func queryFault(keyword, text string) error {
	d := Detail{In: "query", Keyword: keyword, Text: text}
	return &Error{Kind: InvalidParameter, Details: []Detail{d}}
}

// owner returns the parameter that a name in the query belongs to. An object with additional
// properties gets the names that belong to no other parameter.
func (o *Operation) owner(name string) *parameter {
	for _, p := range o.query {
		if p.includes(name) {
			return p
		}
	}
	for _, p := range o.query {
		if p.exploded() && p.shape.others != nil {
			return p
		}
	}
	return nil
}

// checkPairs validates a parameter that is sent as names and values, in the query or in cookies. It
// returns the pairs to bind.
func (p *parameter) checkPairs(pairs []pair, spent *time.Duration) ([]pair, error) {
	if p.empty && len(pairs) == 1 && pairs[0].value == "" && !p.shape.is(kindString) {
		pairs = nil // allowEmptyValue: there is no value
	} else if len(pairs) == 0 {
		if p.required {
			return nil, p.fault("required", "is missing")
		}
		return p.missing, nil
	}
	if len(pairs) == 0 {
		return p.missing, nil
	}
	bound, err := p.bindPairs(pairs, spent)
	if err != nil && len(pairs) == 1 && p.content == "" && !p.scalar {
		// It can also be a text, if the schema accepts one as well as a list or an object.
		if value, ok := p.shape.appendScalar(nil, pairs[0].value); ok && isText(pairs[0].value) {
			if _, refused := p.check(value, spent); refused == nil && pairs[0].name == p.name {
				return pairs, nil
			}
		}
	}
	return bound, err
}

func (p *parameter) bindPairs(pairs []pair, spent *time.Duration) ([]pair, error) {
	text, err := p.decodePairs(pairs)
	if err != nil {
		return nil, err
	}
	return p.bindValue(text, spent)
}

// bindValue validates a JSON text, and encodes it for generated code to bind.
func (p *parameter) bindValue(text []byte, spent *time.Duration) ([]pair, error) {
	several := p.in == "query" && p.content == "" &&
		(p.style == "deepObject" || p.repeated() || p.exploded())
	if !several {
		bound, err := p.bind(text, spent)
		if err != nil {
			return nil, err
		}
		return []pair{{p.name, bound}}, nil
	}
	value, err := p.check(text, spent)
	if err != nil {
		return nil, err
	}
	at := space(value, 0)
	if !p.exploded() {
		return p.shape.flatten(nil, p.name, value, at, p.repeated()), nil
	}
	var bound []pair
	members(value, at, func(name, _, at int) bool {
		bound = append(bound, pair{scalarText(value, name), scalarText(value, at)})
		return true
	})
	return bound, nil
}

func (p *parameter) decodePairs(pairs []pair) ([]byte, error) {
	switch {
	case p.style == "deepObject" && p.content == "":
		return p.decodeDeep(pairs)
	case p.exploded():
		return p.object(pairs)
	case p.repeated():
		var elements []string
		for _, q := range pairs {
			elements = append(elements, q.value)
		}
		return p.list(elements)
	case len(pairs) > 1:
		return nil, p.fault("style", "occurs more than once")
	}
	return p.decode(pairs[0].value)
}

// decodeDeep reads style deepObject: f[a]=1&f[b][0]=2.
func (p *parameter) decodeDeep(pairs []pair) ([]byte, error) {
	var t tree
	for _, q := range pairs {
		_, path, ok := split(q.name)
		if !ok || !isText(q.name) || !isText(q.value) || slices.Contains(path, "") {
			return nil, p.fault("style", "is not named as style deepObject names it")
		}
		t.add(path, q.value)
	}
	text, found := t.append(nil, p.shape, 0)
	if found.text != "" {
		return nil, p.faultAt(found.pointer, "type", found.text)
	}
	return text, nil
}
