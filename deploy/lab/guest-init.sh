#!/bin/busybox sh
# The whole operating system of a lab guest. It reads its name and addresses from the
# kernel's command line (vs.name=web-1 vs.ip=10.1.0.5/24,-,10.2.0.5/24) and answers on
# ICMP, TCP 22, 80 and 8080, so that a refusal seen by a test is the network's doing.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp /www
mount -t tmpfs shm /dev/shm

for module in $(cat /modules/order); do
    insmod "/modules/$module"
done

param() {
    for word in $(cat /proc/cmdline); do
        case $word in "$1="*) echo "${word#*=}" ;; esac
    done
}

hostname "$(param vs.name)"
ip link set lo up
number=0
for address in $(param vs.ip | tr , ' '); do
    [ "$address" = - ] || ip addr add "$address" dev "eth$number"
    number=$((number + 1))
done
for device in /sys/class/net/eth*; do
    [ -e "$device" ] && ip link set "${device##*/}" up
done

hostname > /www/index.html
httpd -h /www -p 80
httpd -h /www -p 8080
printf '#!/bin/sh\necho SSH-2.0-vsignal-guest\n' > /bin/banner
chmod +x /bin/banner
nc -ll -p 22 -e /bin/banner &

# One line in, its output back: the lab's way into a guest that no network policy closes.
# cttyhack gives the loop a terminal, so that an interrupt ends a command that hangs; the
# loop itself stays, for a terminal whose first process ends is hung up and loses input.
cat > /bin/console <<'LOOP'
#!/bin/sh
trap : INT
stty -echo -onlcr
while :; do
    read -r line && (eval "$line")
done
LOOP
chmod +x /bin/console
echo vs-guest-ready > /dev/ttyS0
while :; do
    setsid cttyhack /bin/console < /dev/ttyS0 > /dev/ttyS0 2>&1
done
