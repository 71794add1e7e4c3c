package session

import "errors"

var (
	// ErrUnavailable says that the store did not answer in time or refused; nothing is known to have changed. Try
	// again later.
	ErrUnavailable = errors.New("session: store unavailable")
	// ErrRevoked says that the session was logged out, renewed or expired since it was loaded. Nothing was stored.
	ErrRevoked = errors.New("session: logged out, renewed or expired since it was loaded")
	// ErrLate says that the response has begun, so that a new cookie cannot be sent. Call earlier.
	ErrLate = errors.New("session: response has begun, log in before writing it")
	// ErrNoSession says that the context did not come through Manager.Middleware.
	ErrNoSession = errors.New("session: no session in the context, wrap the handler in Manager.Middleware")
	// ErrNoDevice says that the principal has no such device, or not any more.
	ErrNoDevice = errors.New("session: no such device, list them with Devices")

	errOtherStore  = errors.New("session: this store does not know who is logged in where, use New")
	errUndecodable = errors.New("session: stored data cannot be decoded")
	errDeadline    = errors.New("session: stored session is past its deadline")
)
