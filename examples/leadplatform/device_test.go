package main_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// device is what GET /api/v1/me/devices lists.
type device struct {
	ID, Agent string
	Since     time.Time
	Current   bool
}

// patiently asks again while an instance is too busy to reach Redis in time, as 503 says.
func (c *client) patiently(method, url string) (status int, body []byte) {
	for range 20 {
		if status, body = c.do(method, url, nil); status != http.StatusServiceUnavailable {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return status, body
}

func (c *client) devices(base string) (all []device) {
	c.t.Helper()
	status, body := c.patiently("GET", base+"/api/v1/me/devices")
	var reply struct{ Devices []device }
	if err := json.Unmarshal(body, &reply); status != http.StatusOK || err != nil {
		c.t.Fatalf("devices: %d %s, %v", status, body, err)
	}
	return reply.Devices
}

// devices: a person sees where it is logged in and ends one log-in or all, on whatever instance, and nobody else's.
func devices(t *testing.T, p *platform) {
	apis := p.state(t).APIs()
	here, there := apis[0], apis[len(apis)-1]
	laptop, phone, tablet := newClient(t, here, "dora"), newClient(t, there, "dora"), newClient(t, here, "dora")
	stranger := newClient(t, there, "eve")
	in := func(what string, c *client, base string, want int) {
		t.Helper()
		if status, body := c.patiently("GET", base+"/api/v1/me/devices"); status != want {
			t.Errorf("%s: %d %s, want %d", what, status, body, want)
		}
	}
	all := laptop.devices(there)
	current := ""
	for _, d := range all {
		if d.Current {
			current = d.ID
		}
		if d.ID == "" || time.Since(d.Since) > time.Hour {
			t.Errorf("device %+v", d)
		}
	}
	if len(all) != 3 || current == "" {
		t.Fatalf("listed: %+v", all)
	}
	var phones string
	for _, d := range phone.devices(here) {
		if d.Current {
			phones = d.ID
		}
	}
	if phones == "" || phones == current {
		t.Fatalf("the phone is %q, the laptop %q", phones, current)
	}
	if status, body := stranger.patiently("DELETE", here+"/api/v1/me/devices/"+phones); status != http.StatusNotFound {
		t.Errorf("somebody else ends it: %d %s", status, body)
	}
	in("the phone, before", phone, there, http.StatusOK)
	if status, body := laptop.patiently("DELETE", here+"/api/v1/me/devices/"+phones); status != http.StatusNoContent {
		t.Errorf("log one out: %d %s", status, body)
	}
	for _, base := range apis {
		in("the phone, logged out", phone, base, http.StatusUnauthorized)
		in("the laptop", laptop, base, http.StatusOK)
	}
	if n := len(laptop.devices(there)); n != 2 {
		t.Errorf("%d devices are left", n)
	}
	if status, _ := laptop.patiently("DELETE", there+"/api/v1/me/devices/"+phones); status != http.StatusNotFound {
		t.Errorf("a second time: %d", status)
	}
	status, body := laptop.patiently("POST", here+"/logout-everywhere")
	if status != http.StatusOK || string(body) != "{\"devices\":2}\n" {
		t.Errorf("log all out: %d %q", status, body)
	}
	for _, base := range apis {
		for what, c := range map[string]*client{"the laptop": laptop, "the tablet": tablet} {
			in(what+", all logged out", c, base, http.StatusUnauthorized)
		}
		in("the stranger", stranger, base, http.StatusOK)
	}
}
