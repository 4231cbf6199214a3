package schema

import "math"

// ends holds the ends of the long arrays and objects of a text; nil holds none. Some keywords skip
// an array or object, or list its members. Without the ends, each level of nesting reads everything
// in it again, so that the time grows with the size of the text times its depth.
type ends []longValue // of each block of the text, the outermost one that begins there

type longValue struct{ at, end uint32 }

const (
	blockSize = 16 // bytes; bounds the memory to half of the text
	minLong   = 64 // bytes
)

// newEnds scans a valid text.
func newEnds(b []byte) ends {
	if len(b) > math.MaxUint32 {
		return nil
	}
	e := make(ends, len(b)/blockSize+1)
	var open []uint32
	for i := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = endOfString(b, i)
			continue
		case '{', '[':
			open = append(open, uint32(i))
		case '}', ']':
			at := open[len(open)-1]
			open = open[:len(open)-1]
			if end := uint32(i + 1); end-at >= minLong {
				e[at/blockSize] = longValue{at, end}
			}
		}
		i++
	}
	return e
}

// of returns the end of the array or object at an offset, or 0 if it is not known.
func (e ends) of(at int) int {
	if e == nil || int(e[at/blockSize].at) != at {
		return 0
	}
	return int(e[at/blockSize].end)
}

// endOfValue returns the offset after the value that starts at i.
func (e ends) endOfValue(b []byte, i int) int {
	for depth := 0; ; {
		switch b[i] {
		case '"':
			i = endOfString(b, i)
		case '{', '[':
			if end := e.of(i); end > 0 {
				i = end
				break
			}
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			i++
			continue
		default:
			i = endOfScalar(b, i)
		}
		if depth == 0 {
			return i
		}
	}
}

// scanned charges for a value that is skipped, whether it was read before or not.
func (r *run) scanned(at, end int) {
	size := end - at + 1
	if r.ends != nil && kindOf(r.body[at])&(kindArray|kindObject) != 0 {
		size = min(size, minLong)
	}
	r.pay(size)
}

// pay charges for bytes that are read without a step. Once they are several times the size of the
// text, the pass gets the ends of the text's long values.
func (r *run) pay(size int) {
	const batch = 1 << 10
	if r.unpaid += size; r.unpaid >= batch {
		r.payNow()
	}
}

func (r *run) payNow() {
	r.step(r.unpaid / 4)
	r.skipped += r.unpaid
	r.unpaid = 0
	const small = 1 << 12 // bytes; finding the ends of a smaller text takes more time than it saves
	if r.skipped < small+2*len(r.body) || r.ends != nil {
		return
	}
	if !r.trusted {
		r.undecided()
		return
	}
	r.ends = newEnds(r.body)
}

// members calls f with the offsets of each member's name and value, until it returns false.
func (r *run) members(object int, f func(name, nameEnd, value int) bool) {
	if r.indexed.at == object {
		for _, x := range r.index[r.indexed.first:][:r.indexed.count] {
			if !f(x.name, x.nameEnd, x.value) {
				return
			}
		}
		return
	}
	for i := space(r.body, object+1); r.body[i] != '}'; {
		name := i
		nameEnd := endOfString(r.body, name)
		at := value(r.body, nameEnd)
		if !f(name, nameEnd, at) {
			return
		}
		end := r.ends.endOfValue(r.body, at)
		i = next(r.body, end)
		r.scanned(name, nameEnd)
		if r.scanned(at, end); r.fatal != "" {
			return
		}
	}
}

// elements calls f with the offset of each element, until it returns false.
func (r *run) elements(array int, f func(at int) bool) {
	for i := space(r.body, array+1); r.body[i] != ']'; {
		if !f(i) {
			return
		}
		end := r.ends.endOfValue(r.body, i)
		if r.scanned(i, end); r.fatal != "" {
			return
		}
		i = next(r.body, end)
	}
}
