"""Ordinary sentences: the words and templates of which `prepare.py --ordinary N` makes text that nobody can foresee.

None of these words is anybody's own. Persons, things and adjectives start with a consonant, so that "a" fits.
"""

SENTENCES = [
    "The {person} {moved} {when}",
    "A {mood} {person} {moved} {where}",
    "A {person} met a {mood} {person} {when}",
    "The {mood} {person} {did} the {thing}",
    "One {person} {did} a {thing} {when}",
    "The {person} {did} the {look} {thing} {where}",
    "A {person} {did} the {thing} of a {person}",
    "Nobody {did} the {look} {thing} {when}",
    "Somebody {did} the {thing} {where}",
    "There was a {look} {thing} {where}",
    "The {thing} {where} was {look}",
    "While the {person} {moved}, a {person} {did} the {thing}",
    "A {person} {did} the {thing}, and the {mood} {person} {moved}",
]
CASES = [  # the same for an abstract
    "For example, the {person} {moved} {when}",
    "In one case a {mood} {person} {moved} {where}",
    "A {person} in the survey {did} the {thing}",
    "One report tells of a {person} who {did} a {thing} {when}",
    "Nobody in the control group {did} the {look} {thing}",
    "The data show a {look} {thing} {where}",
    "We observed a {mood} {person} {where}",
    "Take the {thing} that a {person} {did} {when}",
    "In a second case the {person} {did} the {look} {thing}",
    "Before the trial, a {mood} {person} {did} the {thing}",
    "The {thing} {where} was {look}",
    "While the {person} {moved}, a {person} {did} the {thing}",
]


def phrases(text):
    return " ".join(text.split()).split("; ")


# mood: what a person is like; look: what a thing is like. did: something to a thing.
ORDINARY = {
    "person": """baker banker barber bartender beekeeper biologist bishop blacksmith blogger botanist boxer boy
        bricklayer bride broker brother builder busker butcher butler captain caretaker carpenter cashier cellist
        champion chauffeur chef chemist child cleaner clerk climber clown cobbler collector comedian composer cook
        cowboy critic curator customer cyclist dancer decorator designer detective diplomat diver doctor driver drummer
        farmer father fiddler firefighter fisherman florist forester gambler gardener geologist girl goalkeeper grocer
        groom guard guest guide guitarist hairdresser hiker historian husband janitor jockey joiner journalist judge
        juggler king knight lawyer lecturer librarian lifeguard lodger magician maid manager mayor mechanic merchant
        messenger milkman miner minister model mother musician nanny novelist nun nurse painter passenger pensioner
        pharmacist philosopher photographer pilgrim pilot plumber poet policeman porter postman potter president prince
        princess printer producer professor programmer puppeteer queen ranger receptionist referee reporter researcher
        runner sailor salesman scholar scientist sculptor secretary senator servant shepherd sheriff shoemaker
        shopkeeper singer skater soldier student surgeon surveyor swimmer tailor teenager tenant tourist translator
        tutor vet vicar violinist visitor volunteer waiter waitress watchmaker weaver widow wife witness writer
        zookeeper""".split(),
    "thing": """bag ball balloon bandage banjo banner barrel basin basket bathtub bead bed bell belt bench bill boat
        bolt book boot bowl box bracelet branch brick briefcase brochure broom brush bulb cabinet cage calculator
        calendar candlestick cane canoe canvas cap card carpet carrot cart chain chalkboard chart cheese
        chest chisel clarinet cloak coat coconut coin collar comb compass contract cookie cork couch counter cradle
        crate crayon crown crutch crystal cucumber cup cupboard curtain cushion desk diamond diary dice dictionary
        dinghy dish document doll door doorbell doormat drawer drawing dress drum dumbbell faucet feather fence flag
        flashlight flask flower flowerpot flute folder fork fossil fridge funnel gadget garland gem gift glass globe
        glove gong gown guitar hairbrush hammock hamper handbag handkerchief hanger harmonica harness harp hat hatchet
        headband headphone helmet horn horseshoe hose jar jewel jigsaw jug jukebox jumper key kilt kimono kite knife
        knot lace ladle lawnmower leaflet leash lemon letterbox lettuce lever lightbulb lipstick lock locker locket
        lollipop loom magazine magnet mallet mandolin mango manuscript marble mast matchbox medal melon menu metronome
        microphone microscope mirror mitten mop mosaic motorbike mousetrap mug mural mushroom napkin necklace needle
        nest net newspaper nightgown notebook nutcracker padlock paddle paintbrush pamphlet pancake parachute parasol
        parcel passport peach pear pearl pebble pen pencil pendant pendulum pepper photo phone pickaxe picture pie
        pillow pineapple pipe pitcher pizza plank plate plug pole portrait postcard poster pot potato pouch
        projector pulley pump pumpkin puppet purse puzzle quilt racket radiator radish raft rake raincoat rattle razor
        receipt recipe record recorder ribbon ring robe robot rocket rosebush rowboat rucksack rug ruler sack saddle
        sail salad sandal sandwich satchel saucepan saucer saw saxophone scarf schedule screwdriver scroll sculpture
        seashell seesaw shawl shelf shield shirt shoe shoelace shovel shutter sieve sign skateboard sketch skirt sledge
        slipper snowball snowman sock sofa spade spear spoon sponge stamp stapler statue stencil stereo stick stocking
        stool stopwatch stretcher suit sundial sunflower sweater sword tablecloth tambourine tap tapestry tart teacup
        teaspoon telegram telephone telescope television thermometer thimble throne tile tomato toolbox toothbrush
        torch towel toy trampoline trap tray treasure tripod trolley trombone trophy trumpet trunk tub tuba tulip tunic
        typewriter van vase veil vest violin voucher waffle wagon wand wardrobe watch watermelon wheelbarrow wheelchair
        whisk wig window wreath wrench xylophone""".split(),
    "mood": """bald bashful beloved bewildered bossy bright busy calm careful careless cautious charming chatty clever
        confident considerate courteous cranky creative curious daring dazed dedicated demanding determined devoted
        dignified diligent dizzy dreamy dutiful faithful famous fashionable fierce fit foolish forgetful former
        fortunate frail frank frantic friendly frightened fussy generous gifted giggling gloomy graceful greedy grumpy
        handsome hardy hasty healthy helpful heroic hesitant homesick humble jealous jolly keen kind limping lively
        loyal lucky merry meticulous mischievous modest moody mysterious naughty neat new noble nosy passing pensive
        playful polite poor popular powerful practical prudent puzzled quick quiet reckless reluctant retired rich
        romantic rude ruthless sad scared selfish sensible serious shrewd shy sincere slender smart smiling sober
        solemn sociable stern strange strong stylish sulky surprised suspicious talented talkative tall tearful thin
        thirsty thoughtful thrifty tough vain vigilant wary wealthy weary wicked wise witty young youthful""".split(),
    "look": """battered beautiful big bizarre blunt brittle broad bronze bulky charred checkered chipped chunky clear
        coarse colossal common compact complicated concrete copper costly creased crimson crude crumpled curved damaged
        damp dark decorative dented dirty discarded disposable dry faded familiar fancy faulty flat flexible floral
        fluffy foldable foreign forgotten fragile fragrant funny furry genuine giant gleaming glittering glossy
        gorgeous grubby handmade hard heavy hefty hidden hideous hollow homemade huge jagged knitted laminated leaking
        leather lightweight long lopsided lovely magnetic massive mediocre metallic misshapen narrow novel padded pale
        peculiar perfect plastic pointed portable precious pretty priceless pristine quaint ragged rare rectangular
        ripped round rubber salvaged scarlet scented scruffy secondhand shabby shattered short simple slippery smooth
        soaked soft soggy sparkling spare spiky splendid spotless square stained sticky stolen straight striped
        stunning sturdy tarnished tattered thick torn transparent trendy turquoise twisted valuable vast vintage
        weathered weird wide wobbly wonky worn worthless wrinkled""".split(),
    "did": """accepted adjusted admired advertised appraised approached arranged assembled attached auctioned avoided
        blessed blocked borrowed bought brought brushed buried carried carved caught changed checked chose
        claimed cleaned cleared clutched collected commissioned concealed confiscated copied counted covered decorated
        delivered demanded demolished described deserved designed destroyed disliked dismantled donated dragged drew
        dropped dusted enjoyed envied examined exchanged exhibited fetched filmed finished fixed forgot found gathered
        glimpsed grabbed guarded handled hated held hid hired hoisted hugged identified ignored imagined imported
        improved inherited inspected installed insured kept kicked lent lifted liked loaded located loved made mailed
        measured mended mentioned misplaced missed modified moved named needed neglected noticed obtained offered
        ordered owned packed painted patched photographed picked pinched placed planned praised preferred prepared
        presented preserved prized produced promised protected pulled purchased pushed raised received recommended
        recovered recycled refused registered rejected remembered removed renamed rented repaired replaced requested
        rescued reserved restored returned revealed reviewed rinsed rolled ruined saved scrubbed searched seized
        selected sent shared shipped shook showed sketched smashed snatched sold sought spotted stole stored studied
        supplied swapped tested threw tied tilted touched traced traded transported treasured tugged unpacked unveiled
        unwrapped used valued wanted washed watched weighed wiped withdrew won wrapped""".split(),
    "moved": """agreed appeared argued arrived beamed blinked blushed boasted bowed breathed camped celebrated chatted
        cheered chuckled clapped collapsed complained coughed cried crouched danced daydreamed disagreed disappeared
        dozed exercised fainted fell fidgeted fished frowned gasped giggled gossiped grinned groaned grumbled hesitated
        hummed hurried jogged joked jumped knelt laughed limped lingered listened marched meditated moaned mumbled
        murmured napped nodded objected paced paused posed prayed protested rehearsed rejoiced relaxed rested sang sat
        screamed shivered shouted shrugged sighed slept slipped smiled sneezed snored sobbed stammered stood stopped
        stumbled sulked swam sweated talked trembled tripped vanished waited walked wandered waved wept whispered
        whistled winked worked yawned yelled""".split(),
    "when": phrases(
        """after dinner; after hours; after lunch; after the holidays; again and again; ahead of time; at dawn;
        at dusk; at last; at midnight; at noon; at the last minute; at the wrong moment; before breakfast;
        before noon; before sunrise; behind closed doors; by accident; by candlelight; by chance; by mistake;
        for a bet; for fun; for no reason; for the first time; for the last time; from time to time;
        in broad daylight; in great haste; in public; in secret; in the dark; in the rain; in the snow;
        just in case; last autumn; last month; last night; last spring; last summer; last weekend; last winter;
        last year; like a professional; long ago; more than once; once more; on a whim; on purpose;
        on the first try; out of boredom; out of curiosity; over the holidays; right away; soon afterwards;
        the day before; the next day; the other day; two years later; under protest; with a sigh; with a smile;
        with great care; with little hope; without a word; without any help; without delay; without warning"""
    ),
    "where": phrases(
        """across the street; along the canal; at the airport; at the bakery; at the border; at the bus stop;
        at the campsite; at the crossroads; at the museum; at the post office; at the swimming pool;
        at the town hall; behind the barn; behind the church; behind the station; beside the railway;
        beside the river; by the fireplace; by the roadside; in the cafeteria; in the cellar; in the corridor;
        in the courtyard; in the desert; in the elevator; in the laboratory; in the library; in the lobby;
        in the meadow; in the orchard; in the parking lot; in the vineyard; in the waiting room;
        near the airfield; near the harbor; near the stadium; on the beach; on the ferry; on the hillside;
        on the platform; on the roof; on the staircase; outside the courthouse; outside the theater;
        under the bridge; under the old tree"""
    ),
}
