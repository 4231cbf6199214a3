package schema

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
)

// Numbers are compared as decimals, never as float64. The cost is bounded: see maxNumberBytes.
const (
	// maxNumberBytes bounds the length of a number, and maxExponent its exponent, as for a float64
	// (RFC 7493 §2.2). Exact arithmetic with larger numbers is expensive.
	maxNumberBytes = 100
	maxExponent    = 308
	// maxSmall digits fit an int64.
	maxSmall = 18
)

// decimal is a number, 0.digits × 10^exponent. Zero has no digits.
type decimal struct {
	digits   [maxNumberBytes]byte
	n        int // number of digits, without leading and trailing zeros
	exponent int
	negative bool
	// small is the number if isSmall, for comparisons without digits. The digits are read from text
	// when they are needed.
	small   int64
	isSmall bool
	text    []byte
}

// parse reads a JSON number. It reports false if the number exceeds the limits.
func (d *decimal) parse(text []byte) bool {
	if len(text) > maxNumberBytes {
		return false
	}
	if d.isSmall = len(text) <= maxSmall &&
		isDigits(bytes.TrimPrefix(text, []byte("-"))); !d.isSmall {
		return d.parseDigits(text)
	}
	d.small, d.text = 0, text
	for _, c := range text {
		if c != '-' {
			d.small = d.small*10 + int64(c-'0')
		}
	}
	if text[0] == '-' {
		d.small = -d.small
	}
	return true
}

// scan reads the JSON number at an offset if it is a small integer, and returns the offset after
// it.
func (d *decimal) scan(b []byte, at int) (end int, ok bool) {
	i := at
	if b[i] == '-' {
		i++
	}
	first := i
	for d.small = 0; i < len(b) && '0' <= b[i] && b[i] <= '9' && i-first < maxSmall; i++ {
		d.small = d.small*10 + int64(b[i]-'0')
	}
	if i == first || i-first > 1 && b[first] == '0' || endOfScalar(b, i) != i {
		return 0, false
	}
	if first > at {
		d.small = -d.small
	}
	d.isSmall, d.text = true, b[at:i]
	return i, true
}

// expand reads the digits of a small number. Few comparisons need them.
func (d *decimal) expand() {
	if d.isSmall && d.text != nil {
		d.parseDigits(d.text)
		d.text = nil
	}
}

func isDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (d *decimal) parseDigits(text []byte) bool {
	d.n, d.exponent, d.negative = 0, 0, false
	if text[0] == '-' {
		d.negative, text = true, text[1:]
	}
	written := 0
	if e := bytes.IndexAny(text, "eE"); e >= 0 {
		power, err := strconv.Atoi(string(text[e+1:]))
		if err != nil || power > maxExponent || power < -maxExponent {
			return false
		}
		written, text = power, text[:e]
	}
	point := false
	for _, c := range text {
		if c == '.' {
			point = true
			continue
		}
		if d.n > 0 || c != '0' {
			d.digits[d.n] = c
			d.n++
			if !point {
				d.exponent++
			}
		} else if point {
			d.exponent--
		}
	}
	d.exponent += written
	for d.n > 0 && d.digits[d.n-1] == '0' {
		d.n--
	}
	if d.n == 0 {
		d.exponent, d.negative = 0, false
	}
	return true
}

// compare returns -1, 0 or 1.
func (d *decimal) compare(e *decimal) int {
	if d.isSmall && e.isSmall {
		switch {
		case d.small < e.small:
			return -1
		case d.small > e.small:
			return 1
		}
		return 0
	}
	d.expand()
	sign := 1
	if d.negative {
		sign = -1
	}
	switch {
	case d.n == 0 && e.n == 0:
		return 0
	case d.n == 0 && e.negative, e.n == 0 && !d.negative:
		return 1
	case d.n == 0, e.n == 0:
		return -1
	case d.negative != e.negative, d.exponent > e.exponent:
		return sign
	case d.exponent < e.exponent:
		return -sign
	}
	return sign * bytes.Compare(d.digits[:d.n], e.digits[:e.n])
}

// isInteger reports whether the value of the number is an integer, as of 1.0 and 1e2 (JSON Schema
// 2020-12 §4.2.3).
func (d *decimal) isInteger() bool { return d.isSmall || d.n <= d.exponent }

// isMultipleOf reports whether the number is an integer times e, which is positive.
func (d *decimal) isMultipleOf(e *decimal) bool {
	if d.isSmall && e.isSmall {
		return d.small%e.small == 0
	}
	if d.expand(); d.n == 0 {
		return true
	}
	powers := [2]int{d.exponent - d.n, e.exponent - e.n}
	least := min(powers[0], powers[1])
	x, y := d.scaled(powers[0]-least), e.scaled(powers[1]-least)
	return x.Rem(x, y).Sign() == 0
}

// scaled returns the digits as an integer, times 10^power.
func (d *decimal) scaled(power int) *big.Int {
	x, _ := new(big.Int).SetString(string(d.digits[:d.n]), 10)
	return x.Mul(x, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(power)), nil))
}

// appendInteger appends an integer's digits, or reports false if it fits neither int64 nor uint64.
func (d *decimal) appendInteger(b []byte) ([]byte, bool) {
	if d.isSmall {
		return strconv.AppendInt(b, d.small, 10), true
	}
	if d.n > d.exponent || d.exponent > 20 {
		return b, false
	}
	start := len(b)
	if d.negative {
		b = append(b, '-')
	}
	b = append(b, d.digits[:d.n]...)
	for i := d.n; i < d.exponent; i++ {
		b = append(b, '0')
	}
	if d.n == 0 {
		b = append(b, '0')
	}
	text := string(b[start:])
	_, signed := strconv.ParseInt(text, 10, 64)
	_, unsigned := strconv.ParseUint(text, 10, 64)
	return b, signed == nil || unsigned == nil
}

// appendCanonical appends a form that is the same for equal numbers only.
func (d *decimal) appendCanonical(b []byte) []byte {
	if d.expand(); d.negative {
		b = append(b, '-')
	}
	b = append(b, d.digits[:d.n]...)
	b = append(b, 'e')
	return strconv.AppendInt(b, int64(d.exponent), 10)
}

// String returns the number in the notation of a document.
func (d *decimal) String() string {
	if text, ok := d.appendInteger(nil); ok {
		return string(text)
	}
	f, _ := strconv.ParseFloat("0."+string(d.digits[:d.n])+"e"+strconv.Itoa(d.exponent), 64)
	if d.negative {
		f = -f
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// decimalOf returns a number of a document, which kin-openapi provides as a float64: the shortest
// decimal that the float64 represents. Integers from 2^53 on have lost their last digits; decimalOf
// only restores the limits of int64 and uint64 from the nearest float64.
func decimalOf(f float64) *decimal {
	text := strconv.AppendFloat(nil, f, 'g', -1, 64)
	switch f {
	case math.MaxInt64:
		text = strconv.AppendInt(nil, math.MaxInt64, 10)
	case math.MaxUint64:
		text = strconv.AppendUint(nil, math.MaxUint64, 10)
	}
	d := new(decimal)
	d.parse(text)
	d.expand() // the last write, because a decimal of a document is shared
	if d.isInteger() && !d.isSmall && math.Abs(f) < 1e18 {
		d.small, d.isSmall = int64(f), true
	}
	return d
}
