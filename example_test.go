package scaleaware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/scaleaware/scaleaware"
)

// primary stands for a *dbsplit.DB.
type primary struct{ end scaleaware.LSN }

func (p *primary) Position(context.Context) (scaleaware.Token, error) {
	return scaleaware.Token{System: 7551234567890123456, Timeline: 1, LSN: p.end}, nil
}

func ExampleToken_Covers() {
	replica, _ := scaleaware.ParseToken("7551234567890123456:1:0/B1D3548")
	write, _ := scaleaware.ParseToken("7551234567890123456:1:0/B1D4000")
	fmt.Println(replica.Covers(write))
	promoted, _ := scaleaware.ParseToken("7551234567890123456:2:0/C000000")
	fmt.Println(promoted.Covers(write)) // was it before the fork? The numbers cannot tell.
	// Output:
	// false true
	// false false
}

func ExampleWatermark() {
	db := &primary{end: 0xB1D4000}
	ctx, mark := scaleaware.WithWatermark(context.Background())

	// Deep below, a transaction commits.
	scaleaware.WatermarkFrom(ctx).RaiseFrom(db)

	written, err := mark.Written(ctx)
	fmt.Println(written, err)
	// Output: 7551234567890123456:1:0/B1D4000 <nil>
}

func ExampleCarrier_Middleware() {
	signer, err := scaleaware.NewSigner([]string{"32 random bytes or more, shared by all instances"}, nil)
	if err != nil {
		panic(err)
	}
	carrier, err := scaleaware.NewCarrier(signer, nil)
	if err != nil {
		panic(err)
	}
	db := &primary{end: 0xB1D4000}
	write := carrier.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scaleaware.WatermarkFrom(r.Context()).RaiseFrom(db)
		w.WriteHeader(http.StatusCreated)
	}))
	read := carrier.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		written, _ := scaleaware.WatermarkFrom(r.Context()).Written(r.Context())
		fmt.Println("reads wait for", written)
	}))

	first := httptest.NewRecorder()
	write.ServeHTTP(first, httptest.NewRequest("POST", "/", nil))
	second := httptest.NewRequest("GET", "/", nil)
	second.AddCookie(first.Result().Cookies()[0])
	read.ServeHTTP(httptest.NewRecorder(), second)
	// Output: reads wait for 7551234567890123456:1:0/B1D4000
}
