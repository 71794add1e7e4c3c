package dbsplit

import (
	"database/sql/driver"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// sqlType is how database/sql sees a PostgreSQL type. The choices are those of pgx's stdlib package, so that code
// which moves here from there gets the same values.
type sqlType struct {
	cell   func() sqlCell
	scan   reflect.Type
	format int16 // that the server is asked for
}

// sqlCell receives the values of one column.
type sqlCell struct {
	target any // what pgx scans into
	value  func() (driver.Value, error)
}

func cellOf[T driver.Valuer]() sqlCell {
	v := new(T)
	return sqlCell{target: v, value: func() (driver.Value, error) { return (*v).Value() }}
}

func bytesCell() sqlCell {
	b := new([]byte)
	return sqlCell{target: b, value: func() (driver.Value, error) {
		if *b == nil {
			return nil, nil
		}
		return *b, nil
	}}
}

var sqlTypes = map[uint32]sqlType{
	pgtype.BoolOID:        {cellOf[pgtype.Bool], reflect.TypeFor[bool](), pgx.BinaryFormatCode},
	pgtype.ByteaOID:       {bytesCell, reflect.TypeFor[[]byte](), pgx.BinaryFormatCode},
	pgtype.CIDOID:         {cellOf[pgtype.Uint32], reflect.TypeFor[string](), pgx.BinaryFormatCode},
	pgtype.DateOID:        {cellOf[pgtype.Date], reflect.TypeFor[time.Time](), pgx.BinaryFormatCode},
	pgtype.Float4OID:      {cellOf[pgtype.Float4], reflect.TypeFor[float32](), pgx.BinaryFormatCode},
	pgtype.Float8OID:      {cellOf[pgtype.Float8], reflect.TypeFor[float64](), pgx.BinaryFormatCode},
	pgtype.Int2OID:        {cellOf[pgtype.Int2], reflect.TypeFor[int16](), pgx.BinaryFormatCode},
	pgtype.Int4OID:        {cellOf[pgtype.Int4], reflect.TypeFor[int32](), pgx.BinaryFormatCode},
	pgtype.Int8OID:        {cellOf[pgtype.Int8], reflect.TypeFor[int64](), pgx.BinaryFormatCode},
	pgtype.JSONOID:        {bytesCell, reflect.TypeFor[string](), pgx.TextFormatCode},
	pgtype.JSONBOID:       {bytesCell, reflect.TypeFor[string](), pgx.TextFormatCode},
	pgtype.NumericOID:     {cellOf[pgtype.Text], reflect.TypeFor[float64](), pgx.TextFormatCode},
	pgtype.OIDOID:         {cellOf[pgtype.Uint32], reflect.TypeFor[string](), pgx.BinaryFormatCode},
	pgtype.TimestampOID:   {cellOf[pgtype.Timestamp], reflect.TypeFor[time.Time](), pgx.BinaryFormatCode},
	pgtype.TimestamptzOID: {cellOf[pgtype.Timestamptz], reflect.TypeFor[time.Time](), pgx.BinaryFormatCode},
	pgtype.XIDOID:         {cellOf[pgtype.Uint32], reflect.TypeFor[string](), pgx.BinaryFormatCode},
	pgtype.XMLOID:         {bytesCell, reflect.TypeFor[string](), pgx.TextFormatCode},
}

// otherType is every other type: its text, which pgtype.Map.SQLScanner makes arrays, ranges and so on of.
var otherType = sqlType{cellOf[pgtype.Text], reflect.TypeFor[string](), pgx.TextFormatCode}

// sqlFormats are the formats that a query asks for.
var sqlFormats = func() pgx.QueryResultFormatsByOID {
	formats := make(pgx.QueryResultFormatsByOID)
	for oid, t := range sqlTypes {
		formats[oid] = t.format
	}
	return formats
}()

func typeOf(oid uint32) sqlType {
	if t, ok := sqlTypes[oid]; ok {
		return t
	}
	return otherType
}

// ColumnTypeDatabaseTypeName returns the type's name, or its OID when pgx does not know it.
func (r *sqlRows) ColumnTypeDatabaseTypeName(index int) string {
	oid := r.rows.FieldDescriptions()[index].DataTypeOID
	if m := r.rows.TypeMap(); m != nil {
		if t, ok := m.TypeForOID(oid); ok {
			return strings.ToUpper(t.Name)
		}
	}
	return strconv.FormatUint(uint64(oid), 10)
}

// ColumnTypeScanType returns the type that holds every value but NULL.
func (r *sqlRows) ColumnTypeScanType(index int) reflect.Type {
	return typeOf(r.rows.FieldDescriptions()[index].DataTypeOID).scan
}

// modifierHeader is what PostgreSQL adds to the modifiers of some types.
const modifierHeader = 4

// ColumnTypeLength returns the most characters, bits or bytes of a type of variable length, math.MaxInt64 when it has
// no limit.
func (r *sqlRows) ColumnTypeLength(index int) (int64, bool) {
	f := r.rows.FieldDescriptions()[index]
	length := int64(f.TypeModifier)
	switch f.DataTypeOID {
	case pgtype.TextOID, pgtype.ByteaOID:
		return math.MaxInt64, true
	case pgtype.VarcharOID, pgtype.BPCharOID:
		length -= modifierHeader
	case pgtype.VarbitOID:
	default:
		return 0, false
	}
	if f.TypeModifier < 0 {
		length = math.MaxInt64
	}
	return length, true
}

// ColumnTypePrecisionScale tells of a numeric that was declared with a precision.
func (r *sqlRows) ColumnTypePrecisionScale(index int) (precision, scale int64, ok bool) {
	f := r.rows.FieldDescriptions()[index]
	if f.DataTypeOID != pgtype.NumericOID || f.TypeModifier < modifierHeader {
		return 0, 0, false
	}
	m := int64(f.TypeModifier) - modifierHeader
	return m >> 16 & 0xffff, (m&0x7ff ^ 0x400) - 0x400, true // the scale has 11 bits, one of them its sign
}
